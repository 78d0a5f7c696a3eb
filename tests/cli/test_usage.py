"""Wrong usage is one sentence with the status 2, and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_calls import Outcome, assert_fails


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["rekd-edge --help"]),
        (["paint"], ["paint", "rekd-edge --help"]),
        (["predict"], ["BUNDLE", "rekd-edge predict --help"]),
        (["predict", "bundle", "--speed", "9"], ["--speed"]),
        (["predict", "bundle"], ["Nothing to predict"]),
        (["train"], ["--output"]),
        (["train", "--output", "run"], ["--data", "--backbone"]),
        (["train", "--output", "run", "--method", "magic"], ["magic", "rekd"]),
        (["train", "--output", "run", "--layers", "two"], ["--layers"]),
        (["train", "--output", "run", "--set", "epochs"], ["key=value", "epochs"]),
        (["train", "--output", "run", "--set", "=3"], ["key=value"]),
        (["train", "--output", "run", "--set", "epoch=3"], ["epoch", "did you mean epochs"]),
        (["train", "--output", "run", "--set", "epochs=many"], ["epochs", "whole number"]),
        (["train", "--output", "run", "--set", "epochs=3", "--set", "epochs=4"], ["--set epochs is given twice"]),
        (["train", "--output", "run", "--layers", "2", "--set", "layers=3"], ["--layers 2 and --set layers=3"]),
        (["train", "--output", "run", "--data", "a", "--set", "spec=b"], ["--data a and --set data.spec=b disagree"]),
        (["train", "--output", "run", "--method", "cls", "--set", "target_ratio=0.1"], ["target_ratio has no effect"]),
        (["evaluate", "run", "--data", "imdb", "--set", "data.max_length=9"], ["data.max_length belongs to the run"]),
        (["train", "--output", "run", "--set", "model.size=3"], ["model.size"]),
        (["train", "--output", "run", "--config", "nowhere"], ["recipe nowhere"]),
        (["export", "run", "--output", "bundle", "--precision", "int4"], ["int4", "int8"]),
        (["export", "run", "--output", "bundle", "--set", "epochs=3"], ["epochs", "data.NAME"]),
        (["evaluate", "run", "--data", "builtin:planted", "--limit", "0"], ["--limit"]),
        (["evaluate", "run"], ["--data"]),
        (["bench", "bundle", "--threads", "0"], ["threads"]),
        (["inspect", "bundle", "more"], ["more"]),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_sentence(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(*arguments)
    outcome.out = outcome.out if arguments else ""  # without arguments the help is shown as well
    assert_fails(outcome, 2, *words)
    assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []

"""Another system's scores of words: the same figures as for ours, and one sentence for what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rekd_edge.cli import app
from rekd_edge.data import DataSettings, load_data
from rekd_edge.data.eraser import words_of
from rekd_edge.errors import InputError
from rekd_edge.scores import evaluate_scores

SETTINGS = DataSettings(eval_limit=12)
EXAMPLES = load_data("builtin:planted", SETTINGS).split("test")


def oracle() -> list[dict[str, Any]]:
    """The true rationale as scores."""
    lines = []
    assert EXAMPLES.rationale_spans is not None
    for text, spans, label in zip(EXAMPLES.inputs, EXAMPLES.rationale_spans, EXAMPLES.labels, strict=True):
        inside = [int(any(a < end and b > start for start, end in spans)) for a, b in words_of(str(text))]
        lines.append({"scores": [float(each) for each in inside], "mask": inside, "label": ["NEG", "pos"][label]})
    return lines


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_true_rationale_agrees_with_itself(tmp_path: Path) -> None:
    report = evaluate_scores(write(tmp_path / "s.jsonl", oracle()), "builtin:planted", SETTINGS)
    assert {report[name] for name in ("token_f1", "token_f1_macro", "iou_f1", "auprc", "accuracy")} == {1.0}
    assert report["n"] == 12


def test_without_masks_the_best_words_are_selected(tmp_path: Path) -> None:
    lines = [{"scores": [-value for value in line["scores"]]} for line in oracle()]
    report = evaluate_scores(write(tmp_path / "s.jsonl", lines), "builtin:planted", SETTINGS, ratio=0.2)
    counts = [(np.ceil(0.2 * len(line["scores"])), len(line["scores"])) for line in lines]
    assert report["rationale_ratio"] == pytest.approx(np.mean([chosen / words for chosen, words in counts]))
    assert report["token_f1"] == 0.0
    assert "accuracy" not in report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line.pop("scores"), r"Line 3 of .* holds no scores: scores: Field required"),
        (lambda line: line.update(scores=[*line["scores"], 1.0]), r"Line 3 of .* scores for \d+ words"),
        (lambda line: line.update(mask=line["mask"][1:]), r"Line 3 of .* mask for \d+ words"),
        (lambda line: line.update(scores=[float("nan")] * len(line["scores"])), "Line 3 of .* holds no scores"),
        (lambda line: line.update(label="positive"), "has the label 'positive'"),
        (lambda line: line.pop("label"), "gives a label on 11 of 12 lines"),
        (lambda line: line.pop("mask"), "has no mask; say with --ratio"),
        (lambda line: line.update(extra=1), "extra: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, change: Any, message: str) -> None:
    lines = oracle()
    change(lines[2])
    with pytest.raises(InputError, match=message):
        evaluate_scores(write(tmp_path / "s.jsonl", lines), "builtin:planted", SETTINGS)


def test_lines_and_examples_must_match(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 11 lines and the split 12 examples"):
        evaluate_scores(write(tmp_path / "s.jsonl", oracle()[1:]), "builtin:planted", SETTINGS)
    with pytest.raises(InputError, match="does not say what people marked"):
        evaluate_scores(write(tmp_path / "s.jsonl", oracle()), "builtin:digits", SETTINGS)
    with pytest.raises(InputError, match="cannot be read"):
        evaluate_scores(tmp_path / "missing.jsonl", "builtin:planted", SETTINGS)


def test_the_verb(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", oracle())
    given = ["evaluate", "--scores", str(file), "--data", "builtin:planted", "--set", "data.eval_limit=12", "--json"]
    assert json.loads(CliRunner().invoke(app, given).stdout)["auprc"] == 1.0
    assert isinstance(CliRunner().invoke(app, [*given, "run"]).exception, InputError | SystemExit)
    assert CliRunner().invoke(app, ["evaluate", "--data", "builtin:planted"]).exit_code != 0

"""A bundle with a trimmed vocabulary: what it keeps, states and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rekd_edge.data import DataSettings, load_data
from rekd_edge.errors import InputError
from rekd_edge.export import export_bundle
from rekd_edge.runtime import Rationalizer

Run = Callable[..., Path]
FEW = DataSettings(train_limit=30, eval_limit=50, max_length=64)
"""Settings under which the trained run's vocabulary has pieces that no training text holds."""


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("image", r"Images have no vocabulary.*leave --trim-vocabulary out"),
        ("text", r"a-folder-that-is-gone.*--calibration-data"),
    ],
)
def test_unfit_runs_are_refused(make_run: Run, tmp_path: Path, task: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        export_bundle(make_run(task), tmp_path / "bundle", trim=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_trimmed_bundle_answers_training_texts_as_before(trained_run: Path, tmp_path: Path) -> None:
    given = {"calibration_data": "builtin:planted", "data_settings": FEW, "precision": "int8"}
    plain = export_bundle(trained_run, tmp_path / "plain", **given)
    manifest = export_bundle(trained_run, tmp_path / "trimmed", **given, trim=True)
    found = manifest["vocabulary"]
    assert plain["vocabulary"] is None
    assert manifest["verified"]
    assert found["pieces"] < found["of"]
    assert (found["rows"], manifest["parity"]["mask_differences"]) == (50, 0)
    assert 0 < found["changed_rows"] <= 50
    for name in ("model.onnx", "tokenizer.json"):
        assert manifest["files"][name]["size"] < plain["files"][name]["size"]
    whole, fewer = (Rationalizer.load(tmp_path / name) for name in ("plain", "trimmed"))
    texts = load_data("builtin:planted", FEW).split("train").inputs
    for one, other in zip(whole(texts), fewer(texts), strict=True):
        assert (other.label, other.mask, other.tokens, other.rationale) == (
            one.label,
            one.mask,
            one.tokens,
            one.rationale,
        )
    card = (tmp_path / "trimmed" / "README.md").read_text(encoding="utf-8")
    assert f"{found['pieces']} of {found['of']}" in card
    assert "Word pieces kept" not in (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")


def test_the_command_states_what_it_costs(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rekd_edge import cli

    def printed(*arguments: Any) -> str:
        monkeypatch.setattr("sys.argv", ["rekd-edge", *map(str, arguments)])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        return capsys.readouterr().out

    given = ["--calibration-data", "builtin:planted", "--set", "data.train_limit=30", "--set", "data.eval_limit=50"]
    lines = printed("export", trained_run, "--output", tmp_path / "bundle", "--trim-vocabulary", *given).splitlines()
    found = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["vocabulary"]
    gained = 100 * (found["accuracy_trimmed"] - found["accuracy_full"])
    (line,) = (line for line in lines if "vocabulary" in line)
    assert f"{found['pieces']} of {found['of']} pieces" in line
    assert f"({gained:+.1f} points)" in line
    assert line.split() in [shown.split() for shown in printed("inspect", tmp_path / "bundle").splitlines()]

"""Whole sweeps of seconds: what is trained, what is left alone, what is tried again, and what stands in the table."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sweep_calls import compared, run_of, sweep_here

from rekd_edge.errors import InputError
from rekd_edge.evaluate import evaluate
from rekd_edge.sweep import perform
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train

NAMES = {
    "teacher-control-2026",
    "teacher-re-2026",
    "student-cls-2026",
    "student-control-2026",
    "student-re-2026",
    "student-rekd-2026",
}
KEYS = {"data", "method", "variant", "role", "backbone", "layers", "generator_layers", "mask_mode", "target_ratio"}
KEYS |= {"seed", "accuracy", "rationale_ratio", "random_mask_accuracy"}


def test_table_of_a_sweep(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    folder, document = undisturbed
    assert json.loads((folder / "table.json").read_text()) == document
    assert (folder / "table.md").read_text().startswith("# planted reviews in tiny\n")
    assert (folder / "accuracy.png").is_file() or find_spec("matplotlib") is None
    assert {"benchmark", "command", "environment", "rows", "table"} <= document.keys()
    assert document["failed"] == []
    assert {name.rsplit("-", 1)[0] for name in (row["run"] for row in document["rows"])} == NAMES
    assert all(row.keys() >= KEYS for row in document["rows"])
    assert [(line["row"], line["method"], line["n"]) for line in document["table"]] == [
        ("teacher", "re", 1),
        ("student", "cls", 1),
        ("student", "re", 1),
        ("student", "rekd", 1),
    ]
    by_name = {row["run"].rsplit("-", 1)[0]: row for row in document["rows"]}
    control = by_name["student-control-2026"]["accuracy"]
    assert by_name["student-rekd-2026"]["random_mask_accuracy"] == control
    controls = run_of(folder, "student-control-2026")
    accuracies = {
        kind: json.loads((controls / f"control-{kind}" / "metrics.json").read_text())["accuracy"]
        for kind in ("descent", "fixed")
    }
    assert by_name["student-re-2026"]["dev_random_mask_accuracy"] == max(accuracies.values())
    assert by_name["student-cls-2026"]["random_mask_accuracy"] is None
    left = [path.name for path in folder.rglob("*") if path.name in ("progress.json", "error.json", "checkpoints")]
    assert left == []


def test_a_run_is_what_train_and_evaluate_make(undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """The RE student once more, without a sweep: with the sweep's control, and measured by hand."""
    folder, document = undisturbed
    settings = {"data.train_limit": 96, "data.eval_limit": 48, "data.max_length": 32, "predictor_epochs": 1}
    settings |= {"learning_rate": 3e-3, "layers": 1, "generator_layers": 1, "allow_weak_teacher": True}
    config = load_config("planted", {**settings, "control": str(run_of(folder, "student-control-2026"))})
    train(config, tmp_path / "run")
    report = evaluate(tmp_path / "run", "builtin:planted", config.data)
    row = next(row for row in document["rows"] if row["run"].startswith("student-re-"))
    assert {key: row[key] for key in report} == report


def test_finished_runs_are_left_alone(tiny: str, undisturbed: tuple[Path, dict[str, Any]], copied: Path) -> None:
    trained: list[str] = []
    assert compared(sweep_here(tiny, copied, trained=trained)) == compared(undisturbed[1])
    assert trained == []


def test_a_grid_calls_a_finished_run_by_its_own_names(
    tiny: str, undisturbed: tuple[Path, dict[str, Any]], copied: Path
) -> None:
    """As where a grid that had a row alone is given students that it teaches, which changes no fingerprint."""
    result = run_of(copied, "teacher-re-2026") / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"role": "student", "variant": "alone"}))
    assert compared(sweep_here(tiny, copied)) == compared(undisturbed[1])


def test_renamed_rows_keep_their_runs(
    tiny: str,
    undisturbed: tuple[Path, dict[str, Any]],
    copied: Path,
    write_grid: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    renamed = Path(tiny).read_text().replace("  student:", "  small:").replace("  teacher:", "  large:", 1)
    trained: list[str] = []
    document = sweep_here(write_grid(renamed.replace("teacher: teacher", "teacher: large")), copied, trained=trained)
    assert trained == []
    assert "stay in" not in capsys.readouterr().err
    assert {row["variant"] for row in document["rows"]} == {"small", "large"}
    assert [line["accuracy"] for line in document["table"]] == [line["accuracy"] for line in undisturbed[1]["table"]]
    assert all((copied / "runs" / row["run"]).is_dir() for row in document["rows"])


def test_rows_that_are_alike_have_runs_of_their_own(tiny: str, copied: Path, write_grid: Callable[..., str]) -> None:
    """A finished run that the grid names is not taken away from its row for another of the same settings."""
    text = Path(tiny).read_text() + "  alike: {methods: [cls], layers: 1}\n"
    trained: list[str] = []
    document = sweep_here(write_grid(text), copied, trained=trained)
    assert trained == ["alike-cls-2026"]
    once, again = (row for row in document["rows"] if row["method"] == "cls")
    assert once["accuracy"] == again["accuracy"]
    assert (copied / "runs" / once["run"]).is_dir()


def test_only_what_changed_is_trained(tiny: str, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained: list[str] = []
    document = sweep_here(tiny, copied, {"student.alpha": "0.9"}, trained=trained)
    assert trained == ["student-rekd-2026"]  # the others know no α
    assert "1 run of another grid or settings stay" in capsys.readouterr().err
    assert len(document["rows"]) == len(NAMES)
    trained.clear()
    sweep_here(tiny, copied, trained=trained)
    assert trained == []


def test_failed_runs_are_listed_kept_and_retried(
    tiny: str, undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sweep"

    def broken(config: Any, output: Path, *rest: Any) -> Any:
        if config.method == "re" and config.layers == 2:
            raise RuntimeError(f"no luck in {output}")
        return train(config, output, *rest)

    monkeypatch.setattr(perform, "train", broken)
    document = sweep_here(tiny, folder)
    errors = {each["run"]: each["error"] for each in document["failed"]}
    assert errors.keys() == {"teacher-re-2026", "student-rekd-2026"}
    assert errors["teacher-re-2026"].startswith("RuntimeError: no luck in runs/teacher-re-2026-")
    assert errors["student-rekd-2026"] == "It needs teacher-re-2026, which failed."
    assert "Traceback" in json.loads((run_of(folder, "teacher-re-2026") / "error.json").read_text())["traceback"]
    assert "student-rekd-2026" in (folder / "table.md").read_text()

    monkeypatch.setattr(perform, "train", train)
    trained: list[str] = []
    assert compared(sweep_here(tiny, folder, trained=trained)) == compared(document)
    assert trained == []
    assert compared(sweep_here(tiny, folder, retry=True, trained=trained)) == compared(undisturbed[1])
    assert trained == ["teacher-re-2026", "student-rekd-2026"]


def test_tuning_picks_the_lowest_dev_loss(tmp_path: Path, write_grid: Callable[..., str]) -> None:
    text = """\
recipe: planted
seeds: 2
settings: {data.train_limit: 64, data.eval_limit: 32, data.max_length: 24, epochs: 1, control: null, warm_start: false}
rows:
  search: {methods: [re], layers: 1, generator_layers: 1, tune: {learning_rate: [1.0e-6, 1.0e-2]}}
  final: {methods: [re], layers: 1, generator_layers: 1, tuned: search}
"""
    document = sweep_here(write_grid(text), tmp_path / "sweep")
    search = [row for row in document["rows"] if row["variant"] == "search"]
    loss = {
        rate: sum(row["dev_loss"] for row in search if row["settings"]["learning_rate"] == rate)
        for rate in (1e-6, 1e-2)
    }
    best = min(loss, key=loss.__getitem__)
    final = [row for row in document["rows"] if row["variant"] == "final"]
    assert [row["settings"] for row in final] == [{"learning_rate": best}] * 2
    assert [line["values"] for line in document["table"] if line.get("picked")] == [{"learning_rate": best}]
    picked = [row for row in search if row["settings"]["learning_rate"] == best]
    assert [row["dev_accuracy"] for row in final] == [row["dev_accuracy"] for row in picked]
    assert [row["accuracy"] for row in search] == [None] * 4  # test is not read for what is chosen from
    assert all(0 <= row["accuracy"] <= 1 for row in final)
    for pair in zip(picked, final, strict=True):  # nothing is trained twice that a tuning row had trained already
        folders = [tmp_path / "sweep" / "runs" / row["run"] for row in pair]
        records = [json.loads((folder / "training.json").read_text()) for folder in folders]
        assert records[0]["seconds"] == records[1]["seconds"]
        assert records[0]["epochs"] == records[1]["epochs"]
    (line,) = [line for line in document["table"] if line["row"] == "final"]
    assert line["tuned"] == {"learning_rate": {"tried": [1e-6, 1e-2], "taken": best}}
    assert (tmp_path / "sweep" / "tune-learning_rate.png").is_file() or find_spec("matplotlib") is None


def test_pictures_are_left_out_without_matplotlib(
    tiny: str, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "accuracy.png").unlink(missing_ok=True)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert sweep_here(tiny, copied)["failed"] == []
    assert 'pip install "rekd-edge[sweep]"' in capsys.readouterr().err
    assert not (copied / "accuracy.png").exists()


def test_a_moved_sweep_is_still_finished(tiny: str, copied: Path, tmp_path: Path) -> None:
    trained: list[str] = []
    shutil.rmtree(run_of(copied, "student-rekd-2026"))
    document = sweep_here(tiny, copied.rename(tmp_path / "elsewhere"), trained=trained)
    assert trained == ["student-rekd-2026"]
    assert document["failed"] == []


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"data.spec": "no-such-folder"}, "no data 'no-such-folder'"),
        ({"backbone": "no-such-backbone"}, "no-such-backbone"),
        ({"student.epochs": "zero"}, "epochs"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tiny: str, tmp_path: Path, settings: dict[str, str], word: str
) -> None:
    with pytest.raises(InputError, match=word):
        sweep_here(tiny, tmp_path / "sweep", settings)
    assert not (tmp_path / "sweep").exists()


def test_folders_that_are_taken(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for name, word in (("file", "is a file"), ("full", "holds no sweep")):
        with pytest.raises(InputError, match=word):
            sweep_here(tiny, tmp_path / name)

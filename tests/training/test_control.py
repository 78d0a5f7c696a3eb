"""The controls of a run: which there are and how long they learn, which of them counts, and which may be shared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from rekd_edge.errors import InputError
from rekd_edge.runs import RunFolder
from rekd_edge.training import run as run_module
from rekd_edge.training.control import Comparison, compare, controls_of, counting_control
from rekd_edge.training.run import train, train_controls
from rekd_edge.training.teacher import read_teacher


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


class StepRecorder(TrainerCallback):
    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("control-descent", 5, "descent", None), ("control-fixed", 5, "fixed", None)]),
        ({"comparison_control": "fixed"}, [("control-fixed", 5, "fixed", None)]),
        ({"comparison_control": "none"}, []),
        ({"comparison_control": "none", "warm_start": True}, [("control", 3, "none", None)]),
        (
            {"warm_start": True, "control_epochs": 7},
            [
                ("control", 7, "none", None),
                ("control-descent", 5, "descent", "control"),
                ("control-fixed", 5, "fixed", "control"),
            ],
        ),
        ({"control": None}, []),
        ({"method": "cls"}, []),
        ({"epochs": None}, [("control-descent", 37, "descent", None), ("control-fixed", 37, "fixed", None)]),
    ],
)
def test_which_controls_a_run_has(changes: dict[str, Any], expected: list[Any], settings: Callable) -> None:
    """Three epochs and two of the predictor alone; a control of the comparison learns for as many as both together."""
    given = {"method": "re", "epochs": 3, "predictor_epochs": 2, "comparison_control": "both", **changes}
    controls = controls_of(settings("image", **given), layers=1)
    assert [(c.name, c.config.epochs, c.config.comparison_control, c.start) for c in controls] == expected
    assert all(
        (c.config.method, c.config.warm_start, c.config.predictor_epochs) == ("control", False, 0) for c in controls
    )


def test_runs_whose_controls_are_alike_have_equal_ones(settings: Callable) -> None:
    plain = controls_of(settings("image", "re"))
    assert (
        controls_of(settings("image", "rekd", teacher="a", alpha=0.7, lambda_select=0.1, generator_layers=1)) == plain
    )
    for changes in ({"target_ratio": 0.3}, {"learning_rate": 0.5}, {"seed": 1}, {"predictor_epochs": 1}):
        assert controls_of(settings("image", "re", **changes)) != plain


def test_controls_of_the_comparison_take_the_steps_of_the_whole_run(settings: Callable, tmp_path: Path) -> None:
    changes = {"warm_start": True, "control_epochs": 1, "predictor_epochs": 1, "comparison_control": "both"}
    recorders: dict[str, StepRecorder] = {}
    begun: list[str] = []
    begin_from = run_module.begin_from

    def noted(model: Any, control: RunFolder) -> None:
        begun.append(control.path.name)
        begin_from(model, control)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "begin_from", noted)
        metrics = train(
            settings("image", "re", **changes),
            tmp_path / "run",
            callbacks=lambda stage: [recorders.setdefault(stage, StepRecorder())],
        )
    steps = {name: recorder.steps for name, recorder in recorders.items()}
    assert steps == {"control": 4, "control-descent": 12, "control-fixed": 12, "re": 8, "predictor": 4}
    assert begun == ["control"] * 3  # both controls of the comparison, and the run itself

    said = json.loads((tmp_path / "run" / "training.json").read_text())["control"]
    dev = {
        kind: json.loads((tmp_path / "run" / f"control-{kind}" / "metrics.json").read_text())
        for kind in ("descent", "fixed")
    }
    assert said["dev"] == {kind: {"accuracy": m["accuracy"], "loss": m["loss"]} for kind, m in dev.items()}
    assert metrics["random_mask_accuracy"] == max(m["accuracy"] for m in dev.values()) == dev[said["taken"]]["accuracy"]
    counting = counting_control(RunFolder(tmp_path / "run"))
    assert counting is not None
    assert counting.path == tmp_path / "run" / f"control-{said['taken']}"


@pytest.mark.parametrize(
    ("descent", "fixed", "taken"),
    [((0.6, 1.0), (0.5, 0.5), "descent"), ((0.5, 0.5), (0.6, 1.0), "fixed"), ((0.6, 1.0), (0.6, 0.9), "fixed")],
)
def test_the_better_of_two_on_dev_counts(
    descent: tuple[float, float], fixed: tuple[float, float], taken: str, tmp_path: Path
) -> None:
    folders = {"control": RunFolder(tmp_path / "control")}
    for kind, (accuracy, loss) in (("descent", descent), ("fixed", fixed)):
        folders[f"control-{kind}"] = folder = RunFolder(tmp_path / kind)
        folder.path.mkdir()
        folder.metrics_file.write_text(json.dumps({"accuracy": accuracy, "loss": loss, "n": 3}))
    figures = {
        kind: {"accuracy": given[0], "loss": given[1]} for kind, given in (("descent", descent), ("fixed", fixed))
    }
    assert compare(folders) == Comparison(taken, figures)
    assert compare({"control": folders["control"]}) is None


def test_a_warm_start_begins_from_a_control_trained_before(settings: Callable, tmp_path: Path) -> None:
    shared = {"warm_start": True, "comparison_control": "none"}
    assert train_controls(settings("image", "re", **shared, learning_rate=0.01), tmp_path / "controls") is None
    given = str(tmp_path / "controls")
    config = settings("image", "re", **shared, control=given, learning_rate=1e-12, epochs=1)
    metrics = train(config, tmp_path / "run")
    started, source = weights(tmp_path / "run"), weights(tmp_path / "controls" / "control")
    for name, weight in source.items():
        torch.testing.assert_close(started[name], weight, atol=1e-8, rtol=0)
        if ".encoder." in name:
            torch.testing.assert_close(started[name.replace("predictor", "generator", 1)], weight, atol=1e-8, rtol=0)

    # without a comparison there is no figure of one, and a teacher that nobody can check
    assert "random_mask_accuracy" not in metrics
    assert counting_control(RunFolder(tmp_path / "run")) is None
    with pytest.raises(InputError, match="without a random-mask control"):
        read_teacher(str(tmp_path / "run"), allow_weak=False)


def test_controls_trained_alone_are_those_of_a_run(
    runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    comparison = train_controls(settings("text", "re"), tmp_path / "controls")
    whole = runs("text", "re")
    ours, theirs = (weights(folder / "control-descent") for folder in (tmp_path / "controls", whole))
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert comparison is not None
    assert comparison.accuracy == json.loads((whole / "metrics.json").read_text())["random_mask_accuracy"]
    before = (tmp_path / "controls" / "control-descent" / "metrics.json").stat().st_mtime_ns
    assert train_controls(settings("text", "re"), tmp_path / "controls") == comparison
    assert (tmp_path / "controls" / "control-descent" / "metrics.json").stat().st_mtime_ns == before


def test_a_control_of_fewer_steps_is_refused(runs: Callable[..., Path], settings: Callable, tmp_path: Path) -> None:
    config = settings("image", "re", control=str(runs("image", "re")), predictor_epochs=1)
    with pytest.raises(InputError, match="was trained for 8 steps, and this run takes 12; set control=train"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_runs_of_the_first_release_have_one_control(runs: Callable[..., Path], tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(runs("image", "re"), tmp_path / "run"))
    record = run.read_record()
    del record["control"], record["recipe"]["comparison_control"]
    run.record_file.write_text(json.dumps(record))
    assert counting_control(run) is None
    (run.path / "control-descent").rename(run.path / "control")
    assert counting_control(run) == RunFolder(run.path / "control")
    record["recipe"]["control"] = None
    run.record_file.write_text(json.dumps(record))
    assert counting_control(run) is None


def test_given_control_is_compared_with(runs: Callable[..., Path], settings: Callable, tmp_path: Path) -> None:
    source = runs("image", "re")
    expected = json.loads((source / "control-descent/metrics.json").read_text())["accuracy"]
    for control in (source, source / "control-descent"):
        run = tmp_path / control.name
        metrics = train(settings("image", "re", control=str(control), epochs=1), run)
        assert metrics["random_mask_accuracy"] == expected
        assert not list(run.glob("control*"))
        assert counting_control(RunFolder(run)) == RunFolder(source / "control-descent")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target_ratio": 0.4}, "target_ratio differ"),
        ({"mask_mode": "drop"}, "mask_mode differ"),
        ({"layers": 2}, "predictor differ"),
    ],
)
def test_control_of_another_model_is_refused(
    changes: dict[str, Any], words: str, runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    config = settings("image", "re", control=str(runs("image", "re")), **changes)
    with pytest.raises(InputError, match=words):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_no_control_is_refused(runs: Callable[..., Path], settings: Callable, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(runs("image", "re") / "control-descent", unfinished)
    (unfinished / "metrics.json").unlink()
    for control, words in [
        (runs("image", "cls"), "has no control-descent; set control=train, or comparison_control"),
        (tmp_path / "none", r"no config\.json"),
        (unfinished, r"no metrics\.json"),
    ]:
        with pytest.raises(InputError, match=words):
            train(settings("image", "re", control=str(control)), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_control_written_by_another_transformers_version_is_taken(
    runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    control = tmp_path / "control"
    shutil.copytree(runs("image", "re") / "control-descent", control)
    config = json.loads((control / "config.json").read_text())
    config["predictor"] |= {"transformers_version": "0.0", "an_option_of_another_version": 3}
    (control / "config.json").write_text(json.dumps(config))
    train(settings("image", "re", control=str(control), epochs=1), tmp_path / "run")

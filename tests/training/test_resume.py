"""A resumed run ends with the weights of an uninterrupted one, and is refused where it would not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_folders import assert_same_weights, files
from transformers import TrainerCallback

from rekd_edge.errors import InputError
from rekd_edge.files import claim_folder
from rekd_edge.runs.lifecycle import CHECKPOINTS, PURPOSE
from rekd_edge.training import objectives
from rekd_edge.training.run import train


class InterruptAfterCheckpoint(TrainerCallback):
    def __init__(self, epoch: int = 1) -> None:
        self.epoch = epoch

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if round(state.epoch) == self.epoch:
            raise KeyboardInterrupt


class InterruptInEvaluation(TrainerCallback):
    """After the steps of an epoch, before what the evaluation found is saved."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


class StepRecorder(TrainerCallback):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)


@pytest.fixture
def finished(runs: Callable[..., Path], tmp_path: Path) -> Path:
    """A finished run of one test alone: a call on the shared one would lock it for tests of other workers."""
    return Path(shutil.copytree(runs("image", "cls"), tmp_path / "finished"))


@pytest.mark.parametrize("stage", ["control-descent", "re"])
@pytest.mark.parametrize("task", ["text", "image"])
def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    task: str, stage: str, runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    config, output = settings(task, "re"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(config, output, callbacks=lambda name: [InterruptAfterCheckpoint()] if name == stage else [])
    assert not (output / "metrics.json").exists()
    with pytest.raises(InputError, match="--resume"):
        train(config, output)
    recorders = {"control-descent": StepRecorder(), "re": StepRecorder()}
    resumed = train(config, output, resume=True, callbacks=lambda name: [recorders[name]])
    assert recorders[stage].steps == [5, 6, 7, 8]  # the second epoch alone
    assert recorders["control-descent"].steps == ([] if stage == "re" else [5, 6, 7, 8])
    whole = runs(task, "re")
    assert_same_weights(output, whole)
    assert_same_weights(output / "control-descent", whole / "control-descent")
    assert files(output) == files(whole)
    assert resumed == json.loads((whole / "metrics.json").read_text())


def test_resumed_student_ends_with_the_weights_of_an_uninterrupted_one(
    runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    teacher = str(runs("text", "re"))
    config = settings("text", "rekd", teacher=teacher, control=teacher, allow_weak_teacher=True)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", callbacks=lambda _: [InterruptAfterCheckpoint()])
    train(config, tmp_path / "run", resume=True)
    assert_same_weights(tmp_path / "run", runs("text", "rekd"))


def test_resumed_run_draws_the_crops_of_an_uninterrupted_one_in_its_workers(settings: Callable, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for i in range(24):
            place = tmp_path / "data" / split / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            side = 12 + i % 3  # of several sizes, so that each is augmented by itself
            pixels = np.random.default_rng(i).integers(0, 255, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.png")
    config = settings("image", "cls", data__spec=str(tmp_path / "data"), data__augment=True, workers=1)
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", callbacks=lambda _: [InterruptAfterCheckpoint()])
    train(config, tmp_path / "run", resume=True)
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_finished_run_is_left_as_it_is_by_resume(finished: Path, settings: Callable) -> None:
    before = {name: (finished / name).stat().st_mtime_ns for name in files(finished)}
    metrics = train(settings("image", "cls"), finished, resume=True)
    assert metrics == json.loads((finished / "metrics.json").read_text())
    assert before == {name: (finished / name).stat().st_mtime_ns for name in files(finished)}


def test_resume_looks_past_settings_that_the_method_does_not_read(finished: Path, settings: Callable) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert train(settings("image", "cls", lambda_select=0.5), finished, resume=True) == metrics


def test_resume_with_other_settings_is_refused(finished: Path, settings: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"other settings \(learning_rate\)"):
        train(settings("image", "cls", learning_rate=0.5), finished, resume=True)
    config = settings("image", "cls")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", callbacks=lambda _: [InterruptAfterCheckpoint()])
    with pytest.raises(InputError, match=r"other settings \(data, seed\)"):
        train(settings("image", "cls", seed=3, data__train_limit=32), tmp_path / "run", resume=True)


def test_a_run_from_before_a_setting_existed_is_resumed(settings: Callable, tmp_path: Path) -> None:
    config = settings("image", "cls")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", callbacks=lambda _: [InterruptAfterCheckpoint()])
    file = tmp_path / "run" / "checkpoints" / "recipe.json"
    recipe = json.loads(file.read_text())
    del recipe["compile"], recipe["data"]["test_limit"]
    file.write_text(json.dumps(recipe))
    train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_resume_with_other_data_is_refused(settings: Callable, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"text": f"word{i % 7} and word{i % 5}", "label": "odd" if i % 2 else "even"} for i in range(60)]
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = settings("text", "cls", data__spec=str(data))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", callbacks=lambda _: [InterruptAfterCheckpoint()])
    (data / "train.jsonl").write_text("\n".join(map(json.dumps, rows[2:])))
    with pytest.raises(InputError, match=r"The data of .* changed since it was started"):
        train(config, tmp_path / "run", resume=True)
    (data / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert train(config, tmp_path / "run", resume=True)["n"] == 12


def test_a_moved_run_finds_its_best_epoch(settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"epochs": 6, "early_stopping": 1, "learning_rate": 0.03, "predictor_epochs": 1, "control": None}
    config = settings("image", "re", **changes)

    def cut(stage: str) -> list[TrainerCallback]:
        return [InterruptAfterCheckpoint()] if stage == objectives.PREDICTOR else []

    train(config, Path("whole"))
    with pytest.raises(KeyboardInterrupt):
        train(config, Path("cut"), callbacks=cut)
    (tmp_path / "deeper").mkdir()
    shutil.move(tmp_path / "cut", tmp_path / "deeper" / "moved")
    train(config, Path("deeper/moved"), resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "deeper" / "moved")


def test_interrupted_predictor_epochs_are_resumed(settings: Callable, tmp_path: Path) -> None:
    config = settings("image", "re", predictor_epochs=2, control=None)
    whole, output = tmp_path / "whole", tmp_path / "run"
    train(config, whole)
    with pytest.raises(KeyboardInterrupt):
        train(config, output, callbacks=lambda name: [InterruptAfterCheckpoint()] if name == "predictor" else [])
    recorders = {"re": StepRecorder(), "predictor": StepRecorder()}
    train(config, output, resume=True, callbacks=lambda name: [recorders[name]])
    assert {name: recorder.steps for name, recorder in recorders.items()} == {"re": [], "predictor": [5, 6, 7, 8]}
    assert_same_weights(output, whole)


@pytest.mark.parametrize("interrupt", [InterruptInEvaluation(), InterruptAfterCheckpoint(epoch=0)])
def test_resumed_within_an_epoch_a_run_ends_with_the_same_weights_and_epochs(
    interrupt: TrainerCallback, settings: Callable, tmp_path: Path
) -> None:
    config = settings("text", "cls", checkpoint_minutes=1e-9)  # saves after each step
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", callbacks=lambda name: [interrupt])
    train(config, tmp_path / "cut", resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    epochs = [json.loads((tmp_path / name / "training.json").read_text())["epochs"] for name in ("whole", "cut")]
    assert [entry["eval_loss"] for entry in epochs[0]] == [entry["eval_loss"] for entry in epochs[1]]


def test_a_run_that_had_stopped_early_trains_no_further_when_resumed(settings: Callable, tmp_path: Path) -> None:
    changes = {"epochs": 6, "early_stopping": 1, "learning_rate": 0.03, "predictor_epochs": 1, "control": None}
    config = settings("image", "re", **changes)
    train(config, tmp_path / "whole")
    record = json.loads((tmp_path / "whole/training.json").read_text())
    assert len(record["epochs"]) < 6  # it did stop early

    def cut(stage: str) -> list[TrainerCallback]:
        return [InterruptAfterCheckpoint()] if stage == objectives.PREDICTOR else []

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", callbacks=cut)
    recorder = StepRecorder()
    train(config, tmp_path / "cut", resume=True, callbacks=lambda stage: [recorder] if stage == "re" else [])
    assert recorder.steps == []
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    again = json.loads((tmp_path / "cut/training.json").read_text())
    assert (again["epochs"], again["steps"]) == (record["epochs"], record["steps"])


def test_what_a_kill_left_beside_a_finished_run_is_removed(
    runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(runs("text", "cls"), output)
    claim_folder(output / ".finish.abc", PURPOSE)
    claim_folder(output / "checkpoints", CHECKPOINTS)
    train(settings("text", "cls"), output, resume=True)
    assert not (output / ".finish.abc").exists()
    assert not (output / "checkpoints").exists()

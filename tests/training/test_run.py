"""A run from settings to a finished folder: what it holds, how it resumes, and that bad input leaves nothing."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import TrainerCallback

from rekd_edge.errors import FailureError, InputError
from rekd_edge.files import claim_folder
from rekd_edge.modeling import RationaleModel
from rekd_edge.runs.lifecycle import CHECKPOINTS, PURPOSE
from rekd_edge.training import objectives
from rekd_edge.training.objectives import predictor, rekd
from rekd_edge.training.run import train

PREPROCESSING = {"text": "tokenizer.json", "image": "preprocessor_config.json"}
every_run = pytest.mark.parametrize(("task", "method"), [(t, m) for t in PREPROCESSING for m in ("cls", "re", "rekd")])


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]), name


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


@every_run
def test_finished_run_holds_the_files_of_the_contract_and_nothing_else(
    task: str, method: str, runs: Callable[..., Path]
) -> None:
    folder = runs(task, method)
    contract = {"config.json", "model.safetensors", "training.json", "metrics.json", PREPROCESSING[task]}
    control = {f"control-descent/{name}" for name in contract} if method == "re" else set()
    assert files(folder) == contract | control
    assert not (folder / "checkpoints").exists()


@every_run
def test_metrics_and_record_say_what_was_done(task: str, method: str, runs: Callable[..., Path]) -> None:
    folder = runs(task, method)
    metrics = json.loads((folder / "metrics.json").read_text())
    record = json.loads((folder / "training.json").read_text())
    assert {"accuracy", "rationale_ratio", "loss", "macro_f1", "n"} <= metrics.keys()
    assert metrics["n"] == 32
    assert metrics.keys() >= (set() if method == "cls" else {"random_mask_accuracy", "margin_bias", "argmax_ratio"})
    assert record["recipe"]["method"] == method
    assert record["recipe"]["epochs"] == 2
    assert record["recipe"]["target_ratio"] == {"text": 0.1, "image": 0.15}[task]  # the values used, not None
    assert len(record["data"]["fingerprint"]) == 64
    assert record["data"]["examples"] == {"train": 64, "validation": 32, "test": 32}
    assert (record["seed"], record["steps"], len(record["epochs"])) == (2026, 8, 2)
    assert {"torch", "transformers", "rekd_edge"} & record["versions"].keys() >= {"torch", "transformers"}


@every_run
def test_run_ends_calibrated_on_dev_data(task: str, method: str, runs: Callable[..., Path]) -> None:
    metrics = json.loads((runs(task, method) / "metrics.json").read_text())
    config = RationaleModel.from_pretrained(runs(task, method)).config
    if method == "cls":
        assert metrics["rationale_ratio"] == 1.0
        assert config.target_ratio == 1.0
    else:
        assert config.margin_bias == metrics["margin_bias"] != 0
        assert metrics["rationale_ratio"] == pytest.approx(config.target_ratio, abs=0.01)


@pytest.mark.parametrize("figure", ["loss", "accuracy"])
def test_best_epoch_by_the_dev_figure_asked_for_is_the_one_kept(
    figure: str, settings: Callable, tmp_path: Path
) -> None:
    # at such a rate the first epoch is not the last word, nor need the last be the best
    metrics = train(settings("image", "cls", learning_rate=0.03, epochs=4, select_by=figure), tmp_path / "run")
    epochs = json.loads((tmp_path / "run/training.json").read_text())["epochs"]
    by_loss = min(epochs, key=lambda epoch: epoch["eval_loss"])
    by_accuracy = max(epochs, key=lambda epoch: epoch["eval_accuracy"])
    assert len(epochs) == 4
    assert by_loss != by_accuracy
    best = by_loss if figure == "loss" else by_accuracy
    assert metrics["loss"] == pytest.approx(best["eval_loss"], rel=1e-6)
    assert metrics["accuracy"] == best["eval_accuracy"]


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


def test_same_seed_same_weights_and_another_seed_others(
    runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    train(settings("image", "cls"), tmp_path / "same")
    assert_same_weights(tmp_path / "same", runs("image", "cls"))
    train(settings("image", "cls", seed=1), tmp_path / "other")
    name = "predictor.classifier.1.weight"
    assert not torch.equal(weights(tmp_path / "other")[name], weights(tmp_path / "same")[name])


def test_finished_run_is_left_as_it_is_by_resume(runs: Callable[..., Path], settings: Callable) -> None:
    folder = runs("image", "cls")
    before = {name: (folder / name).stat().st_mtime_ns for name in files(folder)}
    metrics = train(settings("image", "cls"), folder, resume=True)
    assert metrics == json.loads((folder / "metrics.json").read_text())
    assert before == {name: (folder / name).stat().st_mtime_ns for name in files(folder)}


def test_resume_looks_past_settings_that_the_method_does_not_read(
    runs: Callable[..., Path], settings: Callable
) -> None:
    folder = runs("image", "cls")
    finished = json.loads((folder / "metrics.json").read_text())
    assert train(settings("image", "cls", lambda_select=0.5), folder, resume=True) == finished


def test_resume_with_other_settings_is_refused(runs: Callable[..., Path], settings: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"other settings \(learning_rate\)"):
        train(settings("image", "cls", learning_rate=0.5), runs("image", "cls"), resume=True)
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


def test_data_without_a_split_to_train_on_leaves_nothing_behind(settings: Callable, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = [{"text": "so it goes", "label": label} for label in ("a", "b")]
    (tmp_path / "data" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="train"):
        train(settings("text", "cls", data__spec=str(tmp_path / "data")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


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


def test_taken_output_is_refused(settings: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        train(settings("image", "cls"), tmp_path / "file")
    with pytest.raises(InputError, match="file is a file"):
        train(settings("image", "cls"), tmp_path / "file" / "run")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        train(settings("image", "cls"), tmp_path / "folder")
    with pytest.raises(InputError, match="no run to resume"):
        train(settings("image", "cls"), tmp_path / "folder", resume=True)
    assert files(tmp_path) == {"file", "folder/mine.txt"}


@pytest.mark.parametrize("task", PREPROCESSING)
@pytest.mark.parametrize("useful", [True, False])
def test_predictor_epochs_teach_the_predictor_alone_and_are_undone_where_they_harm(
    task: str, useful: bool, settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not useful:
        teach = predictor.objective
        unlearn = lambda *a: {n: -loss for n, loss in teach(*a).items()}  # noqa: E731
        monkeypatch.setattr(predictor, "objective", unlearn)
    before = train(settings(task, "re", mask_mode="drop"), tmp_path / "plain")
    again = settings(task, "re", mask_mode="drop", predictor_epochs=4, control=None)
    after = train(again, tmp_path / "run")
    settled = json.loads((tmp_path / "run" / "training.json").read_text())["predictor"]
    assert settled["before"] == pytest.approx(before["loss"])
    assert settled["kept"] is useful is (settled["after"] < settled["before"])
    assert after["loss"] == pytest.approx(min(settled["before"], settled["after"]))
    assert after["rationale_ratio"] == before["rationale_ratio"]
    plain, run = weights(tmp_path / "plain"), weights(tmp_path / "run")
    changed = {name.split(".")[0] for name in plain if not torch.equal(plain[name], run[name])}
    assert changed == ({"predictor"} if useful else set())


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


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    def write(labels: list[str], column: str = "label") -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        with (folder / "train.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["text", column])
            rows.writerows([f"a story number {i}", label] for i, label in enumerate(labels))
        return folder

    return write


def test_bad_input_leaves_nothing_behind(settings: Callable, write_csv: Callable[..., Path], tmp_path: Path) -> None:
    single = write_csv(["good"] * 20)
    wrong = [
        ({"data__spec": str(single)}, "class"),
        ({"data__spec": "builtin:nothing"}, "no data"),
        ({"data__spec": ""}, "--data"),
        ({"backbone": ""}, "--backbone"),
        ({"backbone": "random:bert-giant"}, "known geometry"),
        ({"backbone": "random:vit-nano"}, "reads image"),
        ({"layers": 9}, "9 cannot be kept"),
        ({"generator_layers": 9}, "9 cannot be kept"),
        ({"data__text_column": "nothing", "data__spec": str(single)}, "nothing"),
    ]
    for changes, words in wrong:
        with pytest.raises(InputError, match=words) as caught:
            train(settings("text", "re", **changes), tmp_path / "parent" / "run")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "parent").exists(), changes


@pytest.mark.parametrize(
    ("teacher", "changes", "words"),
    [
        ("image", {}, "reads image"),
        ("text", {"data__max_length": 32}, "max_length=48"),
        ("text", {"allow_weak_teacher": False}, "allow_weak_teacher=true"),
        ("text", {"data__spec": "other"}, "knows the labels"),
    ],
)
def test_unfit_teacher_leaves_nothing_behind(
    teacher: str,
    changes: dict[str, Any],
    words: str,
    settings: Callable,
    runs: Callable[..., Path],
    write_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    if changes.get("data__spec") == "other":
        changes = {"data__spec": str(write_csv(["good", "bad"] * 10))}
    config = settings("text", "rekd", **{"teacher": str(runs(teacher, "re")), "allow_weak_teacher": True, **changes})
    with pytest.raises(InputError, match=words):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_student_without_a_tokenizer_takes_its_teachers(runs: Callable[..., Path]) -> None:
    teacher, student = (json.loads((runs("text", m) / "tokenizer.json").read_text()) for m in ("re", "rekd"))
    assert teacher == student


def test_diverged_training_is_a_failure_and_no_run(settings: Callable, tmp_path: Path) -> None:
    config = settings("image", "re", learning_rate=1e30, control=None, epochs=1, max_grad_norm=0)
    with pytest.raises(FailureError, match="diverged"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("count_all", [True, False])
def test_stored_targets_cover_every_position_that_is_distilled(
    count_all: bool, runs: Callable[..., Path], settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distilled, seen, padded = rekd.objective, [], []

    def spy(model: Any, batch: Any, *rest: Any) -> Any:
        seen.append(batch["teacher_selection_logits"].abs().sum(dim=(2, 3)) > 0)
        padded.append(bool((batch["attention_mask"] == 0).any()))
        assert seen[-1][batch["attention_mask"] == 1].all()
        return distilled(model, batch, *rest)

    monkeypatch.setattr(rekd, "objective", spy)
    teacher = str(runs("text", "re"))
    changes = {"control": None, "allow_weak_teacher": True, "epochs": 1, "count_all_positions": count_all}
    train(settings("text", "rekd", teacher=teacher, **changes), tmp_path / "run")
    assert len(seen) == 4
    assert any(padded)
    assert all(positions.all() for positions in seen) == count_all


@pytest.mark.parametrize("changes", [{"teacher_mask": "student"}, {"count_all_positions": True}, {"mask_mode": "drop"}])
def test_readings_of_the_published_code_train(
    changes: dict[str, Any], runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    teacher = str(runs("text", "re"))
    config = settings("text", "rekd", teacher=teacher, control=None, allow_weak_teacher=True, epochs=1, **changes)
    metrics = train(config, tmp_path / "run")
    assert np.isfinite(list(metrics.values())).all()
    assert not any(torch.isnan(weight).any() for weight in weights(tmp_path / "run").values())


def test_shape_of_the_rationale_is_kept_on_dev_data(settings: Callable, tmp_path: Path) -> None:
    changes = {"select_words": True, "min_selected": 2, "max_selected": 9, "lambda_contiguity": 0.1}
    config = settings("text", "re", target_ratio=0.2, class_ratios={"neg": 0.1}, control=None, **changes)
    metrics = train(config, tmp_path / "run")
    assert metrics["rationale_ratio"] == pytest.approx(0.15, abs=0.03)  # balanced labels: the mean of both
    assert metrics["rationale_ratio_by_label"].keys() == {"neg", "pos"}
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (saved["select_words"], saved["min_selected"], saved["max_selected"]) == (True, 2, 9)
    assert saved["target_ratio"] == pytest.approx(0.15, abs=0.01)


def test_settings_that_do_not_fit_the_data_are_refused(settings: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names 'positive'; the labels are neg, pos"):
        train(settings("text", "re", class_ratios={"positive": 0.1}), tmp_path / "run")
    with pytest.raises(InputError, match="images have none"):
        train(settings("image", "re", select_words=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_student_of_two_teachers(runs: Callable[..., Path], settings: Callable, tmp_path: Path) -> None:
    teachers = f"{runs('text', 're')}, {runs('text', 'rekd')}"
    changes = {"teacher": teachers, "allow_weak_teacher": True, "control": None, "teacher_labels": "hard"}
    metrics = train(settings("text", "rekd", **changes), tmp_path / "run")
    assert 0 < metrics["rationale_ratio"] < 1
    with pytest.raises(InputError, match="nowhere does not exist"):
        train(settings("text", "rekd", **{**changes, "teacher": f"{runs('text', 're')},nowhere"}), tmp_path / "other")


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

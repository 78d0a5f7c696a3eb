"""A run from settings to a finished folder: what it holds and records, and that bad input leaves nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_folders import assert_same_weights, files, weights

from rekd_edge.errors import FailureError, InputError
from rekd_edge.modeling import RationaleModel
from rekd_edge.training.objectives import predictor, rekd
from rekd_edge.training.run import train

PREPROCESSING = {"text": "tokenizer.json", "image": "preprocessor_config.json"}
every_run = pytest.mark.parametrize(("task", "method"), [(t, m) for t in PREPROCESSING for m in ("cls", "re", "rekd")])


@every_run
def test_finished_run_holds_the_files_of_the_contract_and_nothing_else(
    task: str, method: str, runs: Callable[..., Path]
) -> None:
    folder = runs(task, method)
    contract = {"config.json", "model.safetensors", "training.json", "metrics.json", "README.md", PREPROCESSING[task]}
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


def test_same_seed_same_weights_and_another_seed_others(
    runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    train(settings("image", "cls"), tmp_path / "same")
    assert_same_weights(tmp_path / "same", runs("image", "cls"))
    train(settings("image", "cls", seed=1), tmp_path / "other")
    name = "predictor.classifier.1.weight"
    assert not torch.equal(weights(tmp_path / "other")[name], weights(tmp_path / "same")[name])


def test_data_without_a_split_to_train_on_leaves_nothing_behind(settings: Callable, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = [{"text": "so it goes", "label": label} for label in ("a", "b")]
    (tmp_path / "data" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="train"):
        train(settings("text", "cls", data__spec=str(tmp_path / "data")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


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

"""The settings of a run: the paper's defaults, contradictions, and what a run is known by."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from rekd_edge.data import DataSettings
from rekd_edge.errors import InputError
from rekd_edge.methods import METHODS
from rekd_edge.training.configuration import TrainingConfig, load_config, unused_by


def test_defaults_are_the_papers() -> None:
    config = TrainingConfig()
    assert (config.temperature_start, config.temperature_end, config.temperature_refresh) == (5.0, 0.1, 100)
    assert (config.lambda_r, config.alpha, config.learning_rate, config.batch_size) == (0.5, 0.3, 1e-5, 32)
    assert (config.selection_loss, config.teacher_mask, config.gumbel_noise) == ("per_sample", "own", "independent")
    assert (config.mask_mode, config.seed, config.data.max_length) == ("zero", 2026, 256)
    assert (config.calibrate, config.allow_weak_teacher, config.count_all_positions) == (True, False, False)


@pytest.mark.parametrize(("task", "target", "decay", "dropout"), [("text", 0.10, 0.0, 0.5), ("image", 0.15, 1e-3, 0.1)])
def test_modality_defaults_are_the_papers(task: str, target: float, decay: float, dropout: float) -> None:
    config = TrainingConfig(method="re").resolved(task)
    assert (config.target_ratio, config.weight_decay, config.head_dropout) == (target, decay, dropout)
    assert config.epochs == 35
    assert config.head_learning_rate == config.learning_rate
    assert TrainingConfig(method="cls").resolved(task).epochs == 20


@pytest.mark.parametrize(
    ("task", "layers", "depth"), [("text", 4, 1), ("image", 6, 2), ("image", 1, 1), ("image", None, 2)]
)
def test_students_that_drop_have_a_shallow_generator(task: str, layers: int | None, depth: int) -> None:
    student = TrainingConfig(method="rekd", teacher="run", mask_mode="drop", layers=layers)
    assert student.resolved(task).generator_layers == depth
    assert dataclasses.replace(student, generator_layers=3).resolved(task).generator_layers == 3
    assert dataclasses.replace(student, mask_mode="zero").resolved(task).generator_layers is None
    assert dataclasses.replace(student, method="re", teacher=None).resolved(task).generator_layers is None


def test_given_values_win_over_the_modalitys() -> None:
    config = TrainingConfig(target_ratio=0.3, weight_decay=0.0, epochs=2, head_learning_rate=1e-3).resolved("image")
    assert (config.target_ratio, config.weight_decay, config.epochs, config.head_learning_rate) == (0.3, 0.0, 2, 1e-3)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="--teacher"):
        TrainingConfig(method="rekd")
    with pytest.raises(InputError, match="takes no teacher"):
        TrainingConfig(method="re", teacher="runs/teacher")
    with pytest.raises(InputError, match="warm_start"):
        TrainingConfig(method="re", warm_start=True, control=None)


def test_recipe_names_every_setting(tmp_path: Path) -> None:
    saved = TrainingConfig(spec="imdb", data=DataSettings(max_length=99)).to_dict()
    assert saved["data"]["spec"] == "imdb"
    assert saved["data"]["max_length"] == 99
    assert {"alpha", "lambda_select", "seed", "teacher"} <= saved.keys()


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be both"):
        load_config(None, {"min_selected": 5, "max_selected": 4})
    with pytest.raises(InputError, match="exclude each other"):
        load_config(None, {"select_words": True, "count_all_positions": True})


def test_class_ratios_are_those_of_the_labels() -> None:
    config = load_config(None, {"class_ratios": "pos:0.3", "target_ratio": 0.1})
    assert config.ratios(("neg", "pos")) == [0.1, 0.3]
    with pytest.raises(InputError, match="names 'pos'; the labels are a, b"):
        config.ratios(("a", "b"))


def test_alpha_goes_linearly_to_its_end() -> None:
    config = load_config(None, {"alpha": 0.2, "alpha_end": 1.0})
    assert [config.alpha_at(progress) for progress in (0.0, 0.25, 1.0)] == pytest.approx([0.2, 0.4, 1.0])
    assert load_config(None, {"alpha": 0.2}).alpha_at(0.7) == 0.2


@pytest.mark.parametrize(
    ("key", "value", "task"),
    [("data.image_size", "32", "text"), ("data.augment", "true", "text"), ("data.max_length", "64", "image")],
)
def test_a_setting_of_other_data_is_refused_once_the_data_is_known(key: str, value: str, task: str) -> None:
    load_config(None, {key: value}).resolved(task)
    config = load_config(None, {key: value}, strict=True)
    with pytest.raises(InputError, match=f"{key} has no effect on this run: the data is {task}"):
        config.resolved(task)
    assert config.resolved("image" if task == "text" else "text").data == config.data
    config.with_method("cls").resolved(task)  # the control's run was asked for by nobody


def test_what_was_typed_is_no_part_of_the_run() -> None:
    strict, plain = (load_config(None, {"epochs": 3}, strict) for strict in (True, False))
    assert strict == plain
    assert strict.to_dict() == plain.to_dict()


@pytest.mark.parametrize("method", METHODS)
def test_settings_that_a_method_does_not_read_are_no_part_of_its_identity(method: str) -> None:
    teacher = {"teacher": "run"} if METHODS[method].needs_teacher else {}
    config = TrainingConfig(method=method, **teacher)
    changed = {"alpha": 0.9, "early_stopping": 2, "target_ratio": 0.4, "lambda_contiguity": 0.1, "workers": 2}
    counted = {
        name for name in changed if dataclasses.replace(config, **{name: changed[name]}).identity() != config.identity()
    }
    unused = unused_by(method, taught=METHODS[method].selects and METHODS[method].teacher != "never")
    assert counted == {name for name in changed if name not in unused} - {"workers"}
    assert not {"backbone", "teacher", "control", "log_steps"} & config.identity().keys()


@pytest.mark.parametrize(
    ("given", "digest"),
    [
        ({"method": "cls"}, "8b779290f8cd6bc2"),
        ({"method": "control", "control": None, "warm_start": False}, "b721d0ddea1ed483"),
        ({"method": "re"}, "afab692d7d8b88cb"),
        ({"method": "rekd", "teacher": "runs/re"}, "5d41d521670ffd96"),
    ],
)
def test_runs_of_the_first_release_are_known_by_the_same_settings(given: dict[str, Any], digest: str) -> None:
    """Digests of what the first release hashed; a new setting must be marked `LATER`."""
    identity = json.dumps(load_config("planted", given).identity(), sort_keys=True)
    assert hashlib.sha256(identity.encode()).hexdigest()[:16] == digest


def test_a_later_setting_counts_where_it_is_not_at_its_default() -> None:
    assert "select_by" not in TrainingConfig().identity()
    assert TrainingConfig(select_by="accuracy").identity()["select_by"] == "accuracy"


def test_a_control_keeps_what_it_reads_and_nothing_else() -> None:
    given = {"epochs": 7, "mask_mode": "drop", "target_ratio": 0.3, "pooling": "mean", "batch_size": 8}
    of_others = {"early_stopping": 2, "warm_start": True, "predictor_epochs": 3, "alpha": 0.9, "control_epochs": 4}
    control = TrainingConfig(method="rekd", teacher="run", **given, **of_others).for_control()
    assert control == TrainingConfig(method="control", control=None, **given)

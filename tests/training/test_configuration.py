"""Settings: the paper's defaults, and every way in which a setting can be wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from rekd_edge.data import DataSettings
from rekd_edge.errors import InputError
from rekd_edge.training.configuration import TrainingConfig, load_config, shipped_recipes


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


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_and_come_back_from_json(name: str) -> None:
    config = load_config(name, {})
    assert config.spec
    saved = json.loads(json.dumps(config.to_dict()))
    data = saved.pop("data")
    again = load_config(None, saved | {f"data.{key}": value for key, value in data.items()})
    assert again == config


def test_recipes_are_shipped() -> None:
    assert {"planted", "digits"} <= set(shipped_recipes())


def test_overrides_win_over_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: {spec: imdb, max_length: 64}\nalpha: 0.5\nepochs: 3\n")
    config = load_config(recipe, {"alpha": "0.25", "data.max_length": 32})
    assert (config.spec, config.data.max_length, config.alpha, config.epochs) == ("imdb", 32, 0.25, 3)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("epochs", "7", 7),
        ("learning_rate", "3e-4", 3e-4),
        ("alpha", 1, 1.0),
        ("class_ratios", "neg:0.05,pos:0.2", {"neg": 0.05, "pos": 0.2}),
        ("class_ratios", {"neg": 1}, {"neg": 1.0}),
        ("calibrate", "false", False),
        ("calibrate", "True", True),
        ("control", "null", None),
        ("control", "none", None),
        ("lambda_select", None, None),
        ("backbone", "random:bert-nano", "random:bert-nano"),
    ],
)
def test_values_from_the_command_line_get_their_type(key: str, value: Any, expected: Any) -> None:
    coerced = getattr(load_config(None, {key: value}), key)
    assert coerced == expected
    assert type(coerced) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("epochs", "many", "epochs takes a whole number"),
        ("epochs", "1.5", "whole number"),
        ("epochs", 1.5, "whole number"),
        ("epochs", True, "whole number"),
        ("epochs", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("layers", 0, "at least 1"),
        ("generator_layers", 0, "at least 1"),
        ("early_stopping", 0, "at least 1"),
        ("log_steps", 0, "at least 1"),
        ("temperature_refresh", 0, "at least 1"),
        ("seed", -1, "seed must be"),
        ("seed", 2**32, "seed must be"),
        ("learning_rate", "0", "above 0"),
        ("learning_rate", "nan", "above 0"),
        ("learning_rate", [1], "a number"),
        ("temperature_end", -0.1, "above 0"),
        ("lambda_select", -1, "at least 0"),
        ("lambda_select", "inf", "at least 0"),
        ("alpha", 1.1, "between 0 and 1"),
        ("head_dropout", -0.1, "between 0 and 1"),
        ("target_ratio", 0, "above 0 and at most 1"),
        ("target_ratio", 1.1, "above 0 and at most 1"),
        ("calibrate", "maybe", "true or false"),
        ("calibrate", 1, "true or false"),
        ("backbone", 3, "a text"),
        ("backbone", None, "a text"),
        ("method", "rl", "cls, re, rekd"),
        ("mask_mode", "blur", "zero, drop"),
        ("selection_loss", "sum", "per_sample, batch_mean"),
        ("teacher_mask", "both", "own, student"),
        ("gumbel_noise", "none", "independent, shared"),
        ("distil", "neither", "both, rationale, prediction"),
        ("teacher_labels", "firm", "soft, hard"),
        ("kd_temperature", 0, "above 0"),
        ("alpha_end", 2, "between 0 and 1"),
        ("lambda_contiguity", -1, "at least 0"),
        ("min_selected", 0, "at least 1"),
        ("class_ratios", "neg:0", "above 0 and at most 1"),
        ("class_ratios", "neg", "label:ratio"),
        ("class_ratios", "neg:much", r"class_ratios\.neg takes a number"),
        ("precision", "fp8", "auto, fp32, bf16"),
        ("freeze_embeddings", "some", "none, generator, all"),
        ("lr_scheduler", "step", "constant, linear, cosine"),
        ("lambda_selekt", 1, "Unknown setting 'lambda_selekt'"),
        ("data.max_len", 1, r"Unknown setting 'data\.max_len'"),
        ("data.max_length", "long", r"data\.max_length takes a whole number"),
        ("data.max_length", 2, r"data\.max_length"),
        ("data", "imdb", "Unknown setting 'data'"),
        ("model.layers", 1, r"Unknown setting 'model\.layers'"),
        ("warm_start.now", True, "Unknown setting"),
    ],
)
def test_wrong_value_is_one_clear_error(key: str, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_config(None, {key: value})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("alpha: [", "not valid YAML"),
        ("- alpha", "must be a mapping"),
        ("alpha", "must be a mapping"),
        ("data: imdb", "is a mapping"),
        ("alpha: high", "alpha takes a number"),
        ("data: {augment: 3}", r"data\.augment takes true or false"),
        ("1: 2", "Unknown setting"),
        ("data: {1: 2}", "Unknown setting"),
        ("\x00", "not valid YAML"),
    ],
)
def test_unreadable_recipe_is_one_clear_error(content: str, words: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        load_config(recipe, {})
    assert "\n" not in str(caught.value)


def test_binary_recipe_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid YAML"):
        load_config(tmp_path / "recipe.yaml", {})


def test_missing_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(InputError, match="planted"):
        load_config("no-such-recipe", {})


def test_empty_recipe_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml", {}) == TrainingConfig()


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


@pytest.mark.parametrize(("descent", "progress", "left"), [(0, 0, 0), (0.5, 0, 1), (0.5, 0.25, 0.5), (0.5, 0.8, 0)])
def test_the_target_falls_in_the_first_part_of_the_steps(descent: float, progress: float, left: float) -> None:
    assert load_config(None, {"ratio_descent": descent}).descent_at(progress) == pytest.approx(left)

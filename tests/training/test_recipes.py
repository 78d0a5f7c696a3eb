"""Recipes and `--set`: what wins, and every way in which a setting can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rekd_edge.errors import InputError
from rekd_edge.training.configuration import TrainingConfig, load_config, shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_and_come_back_from_json(name: str) -> None:
    config = load_config(name, {})
    assert config.spec
    assert load_config(None, flat(config)) == config


def test_recipes_are_shipped() -> None:
    assert {"planted", "digits"} <= set(shipped_recipes())


def test_the_folders_of_recipes_and_grids_hold_nothing_else() -> None:
    package = Path(__file__).parents[2] / "rekd_edge"
    for folder in (package / "training" / "recipes", package / "sweep" / "grids"):
        assert {path.suffix for path in folder.iterdir() if path.is_file()} <= {".yaml", ".py"}


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
        ("epochs", "many", "epochs must be a whole number"),
        ("epochs", "1.5", "whole number"),
        ("epochs", 1.5, "whole number"),
        ("epochs", True, "whole number"),
        ("epochs", 0, "from 1 to 100000"),
        ("batch_size", 0, "from 1 to 65536"),
        ("layers", 0, "from 1 to 65536"),
        ("generator_layers", 0, "from 1"),
        ("early_stopping", 0, "from 1"),
        ("log_steps", 0, "from 1"),
        ("temperature_refresh", 0, "from 1"),
        ("seed", -1, "seed must be"),
        ("seed", 2**32, "seed must be"),
        ("learning_rate", "0", "above 0"),
        ("learning_rate", "nan", "above 0"),
        ("learning_rate", [1], "a number"),
        ("temperature_end", -0.1, "above 0"),
        ("lambda_select", -1, "at least 0"),
        ("lambda_select", "inf", "at least 0"),
        ("alpha", 1.1, "from 0 to 1"),
        ("head_dropout", -0.1, "from 0 to 1"),
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
        ("alpha_end", 2, "from 0 to 1"),
        ("lambda_contiguity", -1, "at least 0"),
        ("min_selected", 0, "from 1"),
        ("class_ratios", "neg:0", "above 0 and at most 1"),
        ("class_ratios", "neg", "KEY:NUMBER"),
        ("class_ratios", "neg:much", r"class_ratios\.neg must be a number"),
        ("precision", "fp8", "auto, fp32, bf16"),
        ("freeze_embeddings", "some", "none, generator, all"),
        ("lr_scheduler", "step", "constant, linear, cosine"),
        ("lambda_selekt", 1, "Unknown setting 'lambda_selekt'; did you mean lambda_select?"),
        ("data.max_len", 1, r"Unknown setting 'data\.max_len'; did you mean data\.max_length?"),
        ("max_length", 64, r"did you mean data\.max_length?"),
        ("model.gap", "hinge", r"did you mean plmr\.gap?"),
        ("rtp.gap", "hinge", r"Unknown setting 'rtp\.gap'; known are rtp\.sigma, "),
        ("rtp.sigmas", "sender", r"did you mean rtp\.sigma?"),
        ("qqqqq", 1, "known are .*lambda_select, .*data.text_column, .*plmr.gap"),
        ("data.max_length", "long", r"data\.max_length must be a whole number"),
        ("data.max_length", 2**32 - 1, r"data\.max_length must be a whole number from 3 to 65536, not 4294967295"),
        ("data.image_size", 2049, "from 1 to 2048"),
        ("workers", 100_000, "from 0 to 256"),
        ("epochs", "9" * 5000, "not '9{20,60}\\.\\.\\.9{20,60}'"),
        pytest.param("epochs", 10**5000, "not a number of 5,000 digits", id="huge"),
        ("control", "a\x1b[31m", r"control must be a text, or null, not 'a\\x1b\[31m'"),
        ("\x1b[31m", 1, r"Unknown setting '\\x1b\[31m'"),
        ("ratio_descent", 0.5, "ratio_descent was removed"),
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
        ("alpha: high", "alpha must be a number"),
        ("data: {augment: 3}", r"data\.augment must be true or false"),
        ("1: 2", "Unknown setting"),
        ("data: {1: 2}", "Unknown setting"),
        ("\x00", "not valid YAML"),
        ("seed: 2026-99-99", "not valid YAML"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("[" * 1000, "not valid YAML"),
        ("#" * (1 << 20) + "\n", "larger than 1 MiB"),
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


def test_settings_of_earlier_releases_still_load() -> None:
    """A saved recipe holds every setting of its release, the ones that are gone since at their defaults."""
    assert load_config(None, {**flat(TrainingConfig()), "ratio_descent": 0.0}) == TrainingConfig()


def flat(config: TrainingConfig) -> dict[str, Any]:
    """A saved recipe as overrides."""
    saved = json.loads(json.dumps(config.to_dict()))
    for section in ("data", config.method):
        saved |= {f"{section}.{key}": value for key, value in saved.pop(section, {}).items()}
    return saved


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "cls", "target_ratio": "0.1"}, "target_ratio has no effect on this run: cls selects nothing"),
        ({"method": "cls", "warm_start": "false"}, "warm_start has no effect"),
        ({"method": "re", "alpha": "0.5"}, "alpha has no effect on this run: re takes no teacher"),
        ({"method": "rtp", "alpha": "0.5"}, "alpha has no effect on this run: no teacher is given"),
        ({"method": "plmr", "lambda_select": "1"}, "plmr does not read it"),
        ({"method": "re", "plmr.gap": "hinge"}, "plmr.gap has no effect on this run: it belongs to plmr"),
        ({"method": "re", "control": "null", "control_epochs": "3"}, "no control is trained"),
        ({"method": "re", "control_epochs": "3"}, "that a warm start begins from"),
        ({"method": "re", "control": "null", "comparison_control": "fixed"}, "there is no control"),
    ],
)
def test_a_setting_without_effect_is_refused_where_it_was_typed(given: dict[str, Any], words: str) -> None:
    load_config(None, given)  # grids and recipes share settings over methods
    with pytest.raises(InputError, match=words):
        load_config(None, given, strict=True)


@pytest.mark.parametrize("key", ["spec", "data.spec"])
def test_an_override_of_the_data_wins_over_the_recipe(key: str) -> None:
    assert load_config("planted", {}).spec == "builtin:planted"
    assert load_config("planted", {key: "imdb"}).spec == "imdb"


def test_null_asks_for_nothing() -> None:
    config = load_config(None, {"method": "cls", "control": "null", "target_ratio": "null"}, strict=True)
    assert (config.control, config.target_ratio) == (None, None)

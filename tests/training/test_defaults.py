"""What `train` chooses without a recipe, and that no recipe depends on it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from rekd_edge.builder.facts import look_at
from rekd_edge.builder.plan import make_plan
from rekd_edge.cli import app
from rekd_edge.data import DataSettings, load_data
from rekd_edge.training.configuration import TrainingConfig, load_config, shipped_recipes
from rekd_edge.training.configuration.groups import Process, group_of
from rekd_edge.training.defaults import CHOSEN, Profile, choose, learning_settings, tokens_of
from rekd_edge.training.verdict import verdict

NANO = "random:bert-nano"
SNAPSHOT = json.loads(Path(__file__).with_name("recipes.json").read_text())
RECIPES = Path(__file__).parents[2] / "rekd_edge" / "training" / "recipes"
OF_THE_RUN = {"method", "backbone", "layers", "teacher", "seed", "spec"} | {
    f"generator{end}" for end in ("", "_layers", "_width", "_context")
}


def test_every_recipe_is_in_the_snapshot() -> None:
    assert {name.partition(" ")[0] for name in SNAPSHOT} == set(shipped_recipes())


@pytest.mark.parametrize("name", SNAPSHOT)
def test_recipes_resolve_to_what_they_were_before_defaults_were_chosen(name: str) -> None:
    recipe, _, method = name.partition(" ")
    config = load_config(recipe, {"method": method, **({"teacher": "teacher"} if method == "rekd" else {})})
    expected = SNAPSHOT[name]
    found = json.loads(json.dumps(config.resolved(expected["task"]).to_dict()))
    settings = dict(expected["settings"])

    # settings may be added, to the data's too
    data = settings.pop("data")
    assert {key: found["data"][key] for key in data} == data
    assert {key: found[key] for key in settings} == settings


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name.endswith("-paper")])
def test_recipes_of_papers_spell_out_every_value(name: str) -> None:
    spelled = yaml.safe_load((RECIPES / f"{name}.yaml").read_text()).keys()
    counting = {
        each for each in TrainingConfig.fields_by_key().values() if group_of(TrainingConfig, each) is not Process
    }
    assert counting - OF_THE_RUN <= spelled


@pytest.mark.parametrize(
    ("rows", "pretrained", "epochs"),
    [
        (40, True, 15),  # 2 steps an epoch
        (384, True, 15),  # 12
        (2400, True, 4),  # 75
        (20_000, True, 2),  # 625
        (1_000_000, True, 1),  # 31,250
        (2400, False, 8),
    ],
)
def test_steps_are_wanted_and_epochs_follow_from_the_rows(rows: int, pretrained: bool, epochs: int) -> None:
    chosen = learning_settings(Profile("text", rows, 2, 100, pretrained))
    assert chosen.settings["epochs"] == epochs
    assert chosen.settings["learning_rate"] == (3e-4 if pretrained else 1e-3)
    assert ("freeze_embeddings" in chosen.settings) == pretrained
    assert chosen.settings.keys() <= CHOSEN


@pytest.mark.parametrize(("words", "tokens"), [(0, 32), (20, 32), (34, 48), (100, 144), (5000, 256)])
def test_nine_in_ten_texts_fit(words: int, tokens: int) -> None:
    assert tokens_of(words) == tokens


def asked(method: str = "re", **settings: Any) -> TrainingConfig:
    given = {"method": method, "data.spec": "builtin:planted", "backbone": NANO, **settings}
    return load_config(None, given, strict=True)


def test_what_was_asked_for_wins() -> None:
    config, chosen = choose(asked(epochs=7, learning_rate=1e-5, target_ratio=0.2))
    assert (config.epochs, config.learning_rate, config.target_ratio, config.initial_ratio) == (7, 1e-5, 0.2, 0.2)
    assert (config.mask_mode, config.warm_start, config.adam_beta2) == ("drop", True, 0.95)
    assert not {"epochs", "learning_rate", "target_ratio"} & chosen.settings.keys()
    assert chosen.settings["data.max_length"] == config.data.max_length


@pytest.mark.parametrize(
    ("method", "settings", "left"),
    [
        ("cls", {}, {"warm_start", "mask_mode", "initial_ratio", "control_epochs", "predictor_epochs"}),
        ("re", {"control": "null"}, {"warm_start", "control_epochs", "comparison_control"}),
        ("re", {"warm_start": "false"}, {"control_epochs"}),
        ("re", {"count_all_positions": "true"}, {"mask_mode"}),
        ("rtp", {}, {"initial_ratio", "predictor_epochs"}),
        ("re", {"backbone": f"bilstm:{NANO}"}, {"mask_mode", "freeze_embeddings"}),
    ],
)
def test_nothing_is_chosen_that_has_no_effect(method: str, settings: dict[str, Any], left: set[str]) -> None:
    config, chosen = choose(asked(method, **settings))
    assert not left & chosen.settings.keys()
    config.resolved("text")


def test_a_classifier_has_twice_the_epochs_and_a_student_its_teachers_reading(trained_run: Path) -> None:
    whole, _ = choose(asked("cls"))
    selecting, _ = choose(asked())
    assert whole.epochs == 2 * (selecting.epochs or 0)

    student, chosen = choose(asked("rekd", teacher=str(trained_run)))
    assert student.data.max_length == 64  # the teacher's
    assert student.generator == "local"
    assert "lengths, ratio and masks as its teacher has them" in chosen.why
    assert choose(asked("rekd", teacher=str(trained_run), generator_layers=1))[0].generator is None


def test_build_and_train_choose_by_one_rule(tmp_path: Path) -> None:
    spec = "builtin:planted"
    data = load_data(spec, DataSettings(train_limit=960))
    plan = make_plan(look_at(data), spec, NANO, 50.0, {})
    profile = Profile("text", 960, 2, None, False)
    steps = plan.grid["settings"]["epochs"] * 30
    rule = learning_settings(profile, steps).settings
    assert {key: plan.grid["settings"][key] for key in rule} == rule
    assert plan.grid["settings"]["data.max_length"] == choose(asked())[0].data.max_length


def test_train_without_a_recipe_writes_down_what_it_took_and_why(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--method", "re", "--data", "builtin:planted", "--backbone", NANO, "--layers", "1"]
    for setting in ("data.train_limit=96", "data.eval_limit=40", "epochs=1", "predictor_epochs=0", "control=null"):
        arguments += ["--set", setting]
    arguments += ["--output", str(run)]

    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    record = json.loads((run / "training.json").read_text())
    assert record["chosen"]["settings"]["mask_mode"] == record["recipe"]["mask_mode"] == "drop"
    assert record["chosen"]["settings"].keys() <= CHOSEN
    assert all(each in done.stderr for each in record["chosen"]["why"])
    assert "this run has learnt" in done.stderr.lower()  # 3 steps teach nothing

    again = CliRunner().invoke(app, [*arguments, "--resume"])
    assert again.exit_code == 0, again.output


def test_a_recipe_is_taken_as_it_is(tmp_path: Path) -> None:
    arguments = ["train", "--method", "cls", "--config", "planted", "--layers", "1", "--output", str(tmp_path / "run")]
    for setting in ("data.train_limit=64", "data.eval_limit=40", "epochs=1"):
        arguments += ["--set", setting]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert "chosen" not in record
    assert record["recipe"]["pooling"] == "first"


@pytest.mark.parametrize(
    ("accuracy", "majority", "control", "n", "words"),
    [
        (0.50, 0.50, 0.40, 100, "learnt nothing: its dev accuracy of 0.500 is no better than 0.500, that of the most"),
        (0.60, 0.50, 0.65, 100, "no better than 0.650, that of its control"),
        # Wilson by hand: 60 of 100 is 0.502 to 0.691
        (0.60, 0.50, 0.55, 100, "may be anything from 0.502 to 0.691, and its control, on random masks has 0.550"),
        (0.60, 0.50, 0.50, 100, None),
        (0.60, 0.50, 0.55, 1000, None),
    ],
)
def test_a_run_that_learnt_nothing_says_so(
    accuracy: float, majority: float, control: float, n: int, words: str | None
) -> None:
    metrics = {"accuracy": accuracy, "majority_accuracy": majority, "random_mask_accuracy": control, "n": n}
    found = verdict(metrics, "re")
    assert found.learnt == (words is None)
    assert words is None or words in found.sentence


def test_the_most_frequent_label_is_in_the_metrics(trained_run: Path) -> None:
    metrics = json.loads((trained_run / "metrics.json").read_text())
    labels = load_data("builtin:planted", DataSettings(eval_limit=200)).split("validation").labels
    assert metrics["majority_accuracy"] == pytest.approx(max(np.mean(labels), 1 - np.mean(labels)))


def test_labels_without_meaning_are_not_learnt(tmp_path: Path) -> None:
    path = tmp_path / "noise.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["text", "label"], *([f"word{i * 7919 % 97} other{i % 13}", "ab"[i * i % 7 % 2]] for i in range(200))]
        )
    arguments = ["train", "--method", "cls", "--data", str(path), "--backbone", NANO, "--layers", "1"]
    done = CliRunner().invoke(app, [*arguments, "--set", "epochs=1", "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "has learnt" in done.stderr
    assert ("Give it more rows" in done.stderr) or ("Measure on more rows" in done.stderr)

"""Rows set apart in training, the promise that export makes from them, and a device that says "I don't know"."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rekd_edge import Rationalizer
from rekd_edge.cli import app
from rekd_edge.data import DataSettings, load_data
from rekd_edge.errors import InputError
from rekd_edge.evaluation import conformal_threshold, probabilities
from rekd_edge.export import export_bundle
from rekd_edge.runtime.bundle import write_manifest
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train

PLANTED = {"data.spec": "builtin:planted", "backbone": "random:bert-nano", "layers": 1, "epochs": 1, "control": None}
SMALL = {"data.train_limit": 32, "data.eval_limit": 30, "data.max_length": 40, "batch_size": 16, "target_ratio": 0.2}
VECTOR = Path(__file__).parents[1] / "vectors" / "bundles" / "text-int8"


@pytest.fixture(scope="module")
def run(make_once: Callable[..., Path]) -> Path:
    settings = {**PLANTED, **SMALL, "data.conformal_share": 0.25}
    return make_once("set-apart", lambda folder: train(load_config(None, settings), folder))


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("exported") / "bundle"
    export_bundle(run, output, coverage=0.8)
    return output


def test_rows_set_apart_are_in_no_other_split() -> None:
    whole = load_data("builtin:planted", DataSettings())
    data = load_data("builtin:planted", DataSettings(conformal_share=0.25))
    validation, apart = data.split("validation").inputs, data.split("conformal").inputs

    assert len(apart) == len(whole.split("validation")) / 4
    assert sorted([*validation, *apart]) == sorted(whole.split("validation").inputs)
    assert data.split("train").inputs == whole.split("train").inputs


def test_the_manifest_states_what_the_bundle_promises(bundle: Path) -> None:
    promise = json.loads((bundle / "manifest.json").read_text())["conformal"]
    apart = load_data("builtin:planted", DataSettings(conformal_share=0.25, eval_limit=30)).split("conformal")
    scores = probabilities(Rationalizer.load(bundle).predict_rows(list(apart.inputs)).logits)

    assert promise["coverage"] == 0.8
    assert promise["rows"] == len(apart) == 30
    assert promise["threshold"] == conformal_threshold(scores, apart.labels, 0.8)


def test_possible_labels_are_those_that_reach_the_threshold(bundle: Path) -> None:
    rationalizer = Rationalizer.load(bundle)
    threshold = rationalizer.manifest.fields["conformal"]["threshold"]
    prediction = rationalizer("a superb film")
    expected = [label for label, score in prediction.scores.items() if score >= threshold]

    assert rationalizer.possible_labels(prediction) == expected
    assert rationalizer.coverage == 0.8


@pytest.mark.parametrize(("threshold", "possible"), [(0.0, 2), (1.0, 0), (None, 1)])
def test_a_device_abstains_unless_one_label_is_possible(
    bundle: Path, tmp_path: Path, threshold: float | None, possible: int
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    fields = json.loads((copy / "manifest.json").read_text())
    scores = Rationalizer.load(bundle)("a superb film").scores
    fields["conformal"]["threshold"] = max(scores.values()) if threshold is None else threshold
    write_manifest(copy, fields)

    done = CliRunner().invoke(app, ["predict", str(copy), "a superb film", "--abstain", "--json"])
    document = json.loads(done.stdout)
    assert len(document["possible_labels"]) == possible
    assert document["abstained"] == (possible != 1)

    shown = CliRunner().invoke(app, ["predict", str(copy), "a superb film", "--abstain"])
    assert ("I don't know: at a coverage of 0.8" in shown.stdout) == (possible != 1)


@pytest.mark.parametrize("wrong", [{"threshold": 1.5}, {"threshold": "high"}, {"rows": 0}, {"coverage": 0}])
def test_a_promise_that_cannot_be_is_refused(bundle: Path, tmp_path: Path, wrong: dict[str, object]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    fields = json.loads((copy / "manifest.json").read_text())
    write_manifest(copy, {**fields, "conformal": {**fields["conformal"], **wrong}})

    with pytest.raises(InputError, match=f"conformal.{next(iter(wrong))}"):
        Rationalizer.load(copy)


def test_bundles_without_a_promise_open_and_say_so() -> None:
    assert Rationalizer.load(VECTOR)("a superb film").label

    done = CliRunner().invoke(app, ["predict", str(VECTOR), "a superb film", "--abstain"])
    assert isinstance(done.exception, InputError)
    assert "states no coverage" in str(done.exception)

    done = CliRunner().invoke(app, ["predict", str(VECTOR), "x", "--abstain", "--abstain-below", "0.9"])
    assert "give one of them" in str(done.exception)


def test_too_few_rows_are_one_sentence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at least 99 rows .* there are 30"):
        export_bundle(run, tmp_path / "bundle", coverage=0.99)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("settings", [{"conformal_share": 0.5}, {"conformal_share": 0.25, "split_seed": 1}])
def test_rows_that_the_run_met_promise_nothing(run: Path, tmp_path: Path, settings: dict[str, float]) -> None:
    """Another share or seed sets other rows apart than those that the run never saw."""
    with pytest.raises(InputError, match=r"No rows of .* are known to be set apart"):
        export_bundle(run, tmp_path / "bundle", coverage=0.8, data_settings=DataSettings(**settings))


def test_a_run_that_sets_nothing_apart_keeps_its_identity() -> None:
    assert "conformal_share" not in load_config(None, PLANTED).identity()["data"]
    assert np.isclose(
        load_config(None, {**PLANTED, "data.conformal_share": 0.25}).identity()["data"]["conformal_share"], 0.25
    )

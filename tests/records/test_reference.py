"""The reference that export writes, and `monitor` on a log of a bundle that has one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rekd_edge import Rationalizer
from rekd_edge.cli import app
from rekd_edge.data import DataSettings, load_data
from rekd_edge.export import export_bundle
from rekd_edge.records import DecisionLog
from rekd_edge.records.monitor import summary
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train

PLANTED = {"data.spec": "builtin:planted", "backbone": "random:bert-nano", "layers": 1, "epochs": 1}
SMALL = {"data.train_limit": 32, "data.eval_limit": 40, "data.max_length": 40, "batch_size": 16, "target_ratio": 0.2}


@pytest.fixture(scope="module")
def bundle(make_once: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_once("monitored", lambda folder: train(load_config(None, {**PLANTED, **SMALL}), folder))
    output = tmp_path_factory.mktemp("exported") / "bundle"
    export_bundle(run, output)
    return output


def test_the_reference_is_what_the_bundle_says_of_the_validation_data(bundle: Path) -> None:
    reference = json.loads((bundle / "manifest.json").read_text())["reference"]
    texts = load_data("builtin:planted", DataSettings(eval_limit=40)).split("validation").inputs
    assert reference == summary(each.to_dict() for each in Rationalizer.load(bundle)(list(texts)))
    assert reference["n"] == 40


def test_monitor_names_what_moved(bundle: Path, tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log", Rationalizer.load(bundle), bundle) as decisions:
        for number in range(60):
            decisions(f"unheardof {number}")
    done = CliRunner().invoke(app, ["monitor", str(tmp_path / "log"), "--bundle", str(bundle), "--json"])
    moved = {change["what"] for change in json.loads(done.stdout)["changes"] if change["moved"]}
    assert moved
    assert any(what.startswith(("word", "ratio")) for what in moved)


def test_a_bundle_without_a_reference_says_so(tmp_path: Path) -> None:
    old = Path(__file__).parents[1] / "vectors" / "bundles" / "image-fp32"
    image = old.parents[1] / "images" / "digit.png"
    with DecisionLog(tmp_path / "log", Rationalizer.load(old), old) as decisions:
        decisions(str(image))
    done = CliRunner().invoke(app, ["monitor", str(tmp_path / "log"), "--bundle", str(old)])
    assert done.exit_code != 0
    assert "says nothing of its validation data" in str(done.exception) + done.output

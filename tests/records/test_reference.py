"""The reference that export writes, and `monitor` on a log of a bundle that has one."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from rekd_edge import Rationalizer
from rekd_edge.cli import app
from rekd_edge.data import DataSettings, load_data
from rekd_edge.records import DecisionLog
from rekd_edge.records.monitor import summary


def test_the_reference_is_what_the_bundle_says_of_the_validation_data(int8_bundle: Path) -> None:
    reference = json.loads((int8_bundle / "manifest.json").read_text())["reference"]
    texts = load_data("builtin:planted", DataSettings(eval_limit=200)).split("validation").inputs
    assert reference == summary(each.to_dict() for each in Rationalizer.load(int8_bundle)(list(texts)))
    assert reference["n"] == 200


def test_monitor_names_what_moved(int8_bundle: Path, tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log", Rationalizer.load(int8_bundle), int8_bundle) as decisions:
        for number in range(60):
            decisions(f"unheardof {number}")
    done = CliRunner().invoke(app, ["monitor", str(tmp_path / "log"), "--bundle", str(int8_bundle), "--json"])
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

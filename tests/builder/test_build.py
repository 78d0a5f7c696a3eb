"""`rekd-edge build` on generated reviews: everything is there, it can go on, and it says what it is worth."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rekd_edge import Rationalizer
from rekd_edge.builder import build
from rekd_edge.builder.facts import look_at
from rekd_edge.builder.plan import make_plan
from rekd_edge.cli import app
from rekd_edge.data import DataSettings, load_data
from rekd_edge.errors import InputError
from rekd_edge.sweep.grid import load_grid

NANO = "random:bert-nano"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 generated reviews as a CSV with columns of other names."""
    data = load_data("builtin:planted", DataSettings(train_limit=1000)).split("train")
    path = tmp_path_factory.mktemp("own") / "reviews.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "verdict"])
        writer.writerows(zip(data.inputs, (["bad", "good"][label] for label in data.labels), strict=True))
    return path


COLUMNS = {"text_column": "body", "label_column": "verdict"}


@pytest.mark.slow
def test_from_a_csv_to_a_bundle(reviews: Path, tmp_path: Path) -> None:
    said: list[str] = []
    output = tmp_path / "mine"
    built = build(str(reviews), output, backbone=NANO, hours=0.02, settings=COLUMNS, confirm=said.append)
    assert "labels: bad" in said[0]
    assert said[-1].startswith("about ")

    assert Rationalizer.load(output / "bundle")("a superb film").label in ("bad", "good")
    assert (output / "report.html").is_file()
    assert [row["name"].split()[0] for row in built.rows] == ["CLS", "REKD", "control"]
    assert built.rows[1]["n"] == 200
    assert ("has learnt" in built.verdict) == built.learnt
    assert load_grid(str(output / "grid.yaml")).rows["student"].variants["rekd"].teacher == "teacher"

    # once more: nothing is trained again
    before = {path: path.stat().st_mtime_ns for path in (output / "sweep" / "runs").rglob("model.safetensors")}
    again = build(str(reviews), output, backbone=NANO, settings=COLUMNS, confirm=said.append)
    assert again.rows[0] == built.rows[0]
    assert before == {path: path.stat().st_mtime_ns for path in (output / "sweep" / "runs").rglob("model.safetensors")}
    with pytest.raises(InputError, match="was begun with another backbone"):
        build(str(reviews), output, backbone="random:bert-micro", settings=COLUMNS)


@pytest.mark.parametrize(("hours", "rows"), [(0.001, 400), (1.0, 640)])
def test_a_plan_fits_the_time_and_names_every_setting(reviews: Path, hours: float, rows: int) -> None:
    facts = look_at(load_data(str(reviews), DataSettings(**COLUMNS)))
    plan = make_plan(facts, str(reviews), NANO, hours, COLUMNS)
    settings: dict[str, Any] = plan.grid["settings"]
    assert settings["data.text_column"] == "body"
    assert settings["backbone"] == NANO
    assert "freeze_embeddings" not in settings  # random ones must be learnt
    assert settings["epochs"] >= 3
    assert settings.get("data.train_limit", 640) <= rows or hours < 0.01
    assert yaml.safe_load(yaml.safe_dump(plan.grid)) == plan.grid


def test_what_is_refused(reviews: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exclude each other"):
        build(str(reviews), tmp_path / "a", quick=True, hours=1.0, settings=COLUMNS)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes").write_text("mine")
    with pytest.raises(InputError, match="was not begun by build"):
        build(str(reviews), tmp_path / "b", backbone=NANO, settings=COLUMNS)
    assert not (tmp_path / "a").exists()

    done = CliRunner().invoke(app, ["build", str(reviews), "--output", str(tmp_path / "c"), "--set", "epochs=3"])
    assert done.exit_code != 0
    assert not (tmp_path / "c").exists()

"""Someone's own CSV, from one file to a measured run."""

from __future__ import annotations

import json
from pathlib import Path

from rekd_edge.data import DataSettings, load_data
from rekd_edge.evaluate import evaluate
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train


def test_a_run_notes_how_its_file_was_split_and_is_measured_on_the_same_rows(tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    rows = [f'"a {("dull", "superb")[i % 2]} film, number {i}";{("neg", "pos")[i % 2]}' for i in range(50)]
    file.write_text("\n".join(["body;stars", *rows]))
    columns = {"data.text_column": "body", "data.label_column": "stars", "data.max_length": 16}
    size = {"backbone": "random:bert-nano", "layers": 1, "epochs": 1}
    train(load_config(None, {"data.spec": str(file), "method": "cls", **columns, **size}), tmp_path / "run")

    noted = json.loads((tmp_path / "run" / "training.json").read_text())["data"]
    assert noted["examples"] == {"train": 32, "validation": 8, "test": 10}
    assert noted["made"] == {"test": 0.2, "validation": 0.2}
    settings = DataSettings(text_column="body", label_column="stars")
    assert load_data(str(file), settings).fingerprint == noted["fingerprint"]
    for split, count in (("test", 10), ("all", 50)):
        assert evaluate(tmp_path / "run", str(file), settings, split)["n"] == count
    assert evaluate(tmp_path / "run", str(file), settings, "all", limit=6)["n"] == 6

"""Folders of every layout that a SPEC may name, with nothing cached outside the test's own folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as `FOLDER/NAME` in the format that the suffix names, and return the folder."""

    def write(name: str, rows: list[dict], features: datasets.Features | None = None) -> Path:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        path = folder / name
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            columns = {key: [row[key] for row in rows] for key in rows[0]}
            table = datasets.Dataset.from_dict(columns, features=features)
            table.to_csv(str(path)) if path.suffix == ".csv" else table.to_parquet(str(path))
        return folder

    return write


@pytest.fixture
def reviews() -> list[dict]:
    """20 rows, half of them good."""
    return [{"text": f"review {i}", "label": "good" if i % 2 else "bad"} for i in range(20)]


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[..., Path]:
    """Write images of 6 x 5 pixels, each of one grey level, into `FOLDER/PART`, and return the folder."""

    def write(part: str, levels: list[int]) -> Path:
        (tmp_path / "images" / part).mkdir(parents=True, exist_ok=True)
        for level in levels:
            Image.fromarray(np.full((5, 6, 3), level, np.uint8)).save(tmp_path / "images" / part / f"test_{level}.png")
        return tmp_path / "images"

    return write

"""A row that cannot be read is named, whoever reads it, and what was not trained leaves no folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import get_worker_info

from rekd_edge.data import load_data
from rekd_edge.data.features import ImageFeatures, TextFeatures
from rekd_edge.data.settings import DataSettings
from rekd_edge.errors import FailureError, InputError
from rekd_edge.training.run import train


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images of several sizes, so that each is read when it is used; one of them is corrupt."""
    for split in ("train", "validation"):
        for i in range(24):
            place = tmp_path / "images" / split / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, 255, (12 + i % 3, 12 + i % 3, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.png")
    corrupt = tmp_path / "images" / "train" / "a" / "6.png"
    corrupt.write_bytes(corrupt.read_bytes()[:60])
    return tmp_path / "images"


@pytest.mark.parametrize(("method", "changes"), [("cls", {}), ("re", {"data__augment": True})])
def test_a_corrupt_image_is_named_and_leaves_no_folder(
    method: str, changes: dict[str, Any], images: Path, settings: Callable, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"6\.png"):
        train(settings("image", method, data__spec=str(images), **changes), tmp_path / "parent" / "run")
    assert not (tmp_path / "parent").exists()


def test_a_row_that_a_worker_cannot_read_is_named_without_its_traceback(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = TextFeatures.__getitem__

    def refuse(self: Any, index: int) -> Any:
        if get_worker_info() is not None and index == 7:
            raise InputError("Row 8 cannot be read.")
        return read(self, index)

    monkeypatch.setattr(TextFeatures, "__getitem__", refuse)
    with pytest.raises(InputError, match=r"^Row 8 cannot be read\.$"):
        train(settings("text", "cls", workers=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_worker_that_dies_is_a_failure(settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = TextFeatures.__getitem__

    def die(self: Any, index: int) -> Any:
        return read(self, index) if get_worker_info() is None else os._exit(9)

    monkeypatch.setattr(TextFeatures, "__getitem__", die)
    with pytest.raises(FailureError, match=r"A process that loads data died .*set fewer workers"):
        train(settings("text", "cls", workers=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_corrupt_image_in_a_table_is_named_by_its_row(images: Path, tmp_path: Path) -> None:
    files = sorted((images / "train" / "a").glob("*.png"))
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "label": [str(i % 2) for i in range(len(files))],
    }
    (tmp_path / "table").mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "table" / "train.parquet"))
    data = load_data(str(tmp_path / "table"), DataSettings(image_column="image", validation_share=0.2))
    bad = next(i for i, file in enumerate(files) if file.name == "6.png") + 1
    with pytest.raises(InputError, match=f"Row {bad} of the images"):
        [list(data.split(split).inputs) for split in ("train", "validation")]


def test_what_was_trained_before_an_error_is_kept(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, made = ImageFeatures.__init__, []

    def fail(self: Any, *arguments: Any, **options: Any) -> None:
        made.append(self)
        if len(made) == 3:  # after training and dev data of the control
            raise InputError("Row 5 cannot be read.")
        build(self, *arguments, **options)

    monkeypatch.setattr(ImageFeatures, "__init__", fail)
    with pytest.raises(InputError, match="Row 5"):
        train(settings("image", "re"), tmp_path / "run")
    monkeypatch.undo()
    assert (tmp_path / "run" / "control-descent" / "metrics.json").is_file()
    assert train(settings("image", "re"), tmp_path / "run", resume=True)["n"] == 32

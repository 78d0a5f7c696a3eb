"""Parquet files of texts, and what became of them."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

WORDS = "An absolute delight from the first scene très bon dull lifeless film [SEP] סרט טוב !".split()  # noqa: SIM905


def texts(count: int, seed: int = 0) -> list[str | None]:
    """Texts of 0 to 40 words, some of them null."""
    choose = random.Random(seed)
    rows = [" ".join(choose.choices(WORDS, k=choose.randint(0, 40))) for _ in range(count)]
    return [None if choose.random() < 0.05 else text for text in rows]


def write(path: Path, row_group_size: int = 7, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.ParquetFile(path).read().to_pylist()


def results(folder: Path) -> dict[Path, int]:
    """Finished files and those of row ranges, and when they were written."""
    found = {}
    for path in folder.rglob("*.parquet"):
        with suppress(FileNotFoundError):  # a piece that has just become part of its file
            if path.is_file():
                found[path] = path.stat().st_mtime_ns
    return found


def close(found: Any, wanted: Any) -> bool:
    """Equal, but for the last digits of numbers that came out of another batch."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(close(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, float):
        return found == pytest.approx(wanted, abs=1e-5)
    return bool(found == wanted)

"""A row that cannot be predicted is set aside with its reason, whatever raised it, and the rest goes on."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rekd_edge.bulk import predict_files
from rekd_edge.bulk.rows import output_fields, predict_batch
from rekd_edge.errors import InputError
from rekd_edge.runtime import Rationalizer


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def eighty_million_by_one() -> bytes:
    """78 kB that stopped a job for good: its file failed on every call, and no row was named."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 80_000_000, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(80_000_001), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_an_oversized_image_is_set_aside(digits_bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "images.parquet"
    pq.write_table(pa.table({"image": [png(0), eighty_million_by_one(), png(255)]}), source)
    report = predict_files(digits_bundle, source, tmp_path / "out")
    assert (report["rows"], report["errors"]) == (3, 1)
    rows = pq.read_table(tmp_path / "out" / "images.parquet").to_pylist()
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert "80000000 x 1 pixels is too large" in rows[1]["error"]
    assert rows[1]["label"] is None


@pytest.mark.parametrize("error", [MemoryError(), ValueError("bad\nnews"), OSError(5, "Input/output error")])
def test_whatever_a_library_raises_costs_one_row(
    digits_bundle: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    rationalizer = Rationalizer.load(digits_bundle, threads=1)
    resize = Image.Image.resize

    def sometimes(image: Any, *arguments: Any, **options: Any) -> Any:
        if image.size == (3, 3):
            raise error
        return resize(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", sometimes)
    small = io.BytesIO()
    Image.new("L", (3, 3)).save(small, "PNG")
    batch = pa.RecordBatch.from_pydict({"image": [png(i) for i in range(5)] + [small.getvalue()] + [png(9)]})
    schema = output_fields(batch.schema, "image", rationalizer.manifest)
    rows = predict_batch(batch, "image", rationalizer, schema, Path()).to_pylist()
    assert [row["error"] is not None for row in rows] == [False] * 5 + [True, False]
    assert "\n" not in rows[5]["error"]


def test_threads_of_a_job_have_bounds(digits_bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(0)]}), tmp_path / "images.parquet")
    for threads in (0, 100_000):
        with pytest.raises(InputError, match="whole number from 1 to 1024"):
            predict_files(digits_bundle, tmp_path / "images.parquet", tmp_path / "out", threads=threads)
    assert not (tmp_path / "out").exists()

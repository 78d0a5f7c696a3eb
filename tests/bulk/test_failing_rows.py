"""A row that cannot be predicted is set aside with its reason, whatever happens to it, and the rest goes on."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import dying_calls
import pyarrow as pa
import pytest
from parquet_files import close, rows, write

from rekd_edge import Rationalizer, bulk
from rekd_edge.bulk import predict_files
from rekd_edge.bulk.crashes import CrashRecord, fatal_rows
from rekd_edge.bulk.rows import output_fields, predict_batch
from rekd_edge.engines import EngineSettings


class Fragile:
    """A bundle that raises what it is given for some texts."""

    def __init__(self, whole: Rationalizer, errors: dict[str, Exception]) -> None:
        self._whole, self._errors = whole, errors
        self.manifest = whole.manifest

    def __call__(self, inputs: list[str]) -> Any:
        for text in inputs:
            if text in self._errors:
                raise self._errors[text]
        return self._whole(inputs)


def test_whatever_a_row_raises_is_its_error(text_bundle: Path) -> None:
    whole = Rationalizer.load(text_bundle, threads=1, verify=False)
    errors = {"memory": MemoryError(), "key": KeyError("absent"), "type": TypeError("of\nall  kinds")}
    values = ["a", "memory", "b", "key", None, "c", "type"]
    batch = pa.RecordBatch.from_pydict({"text": pa.array(values, pa.string())})
    schema = output_fields(batch.schema, "text", whole.manifest)
    found = predict_batch(batch, "text", Fragile(whole, errors), schema, Path()).to_pylist()  # type: ignore[arg-type]
    assert [row["error"] for row in found] == [
        None,
        "There is not enough memory for it.",
        None,
        "KeyError: 'absent'",
        "The text is missing (null).",
        None,
        "TypeError: of all kinds",
    ]
    for row, value in zip(found, values, strict=True):
        answer = whole(value).to_dict() if row["error"] is None else {}  # type: ignore[arg-type]
        assert all(close(row[name], answer.get(name)) for name in ("label", "mask", "scores"))


def huge_png(width: int) -> bytes:
    """The beginning of an image of one line: its header promises more pixels than anybody should read."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_image_bomb_stops_no_other(digits_bundle: Path, tmp_path: Path) -> None:
    write(tmp_path / "in.parquet", image=pa.array([huge_png(2**29), b"no image", huge_png(3)], pa.binary()))
    report = predict_files(digits_bundle, tmp_path / "in.parquet", tmp_path / "out", EngineSettings(workers=1))
    assert report["errors"] == 2
    found = rows(tmp_path / "out" / "in.parquet")
    assert [row["label"] is None for row in found] == [True, True, False]
    assert all(row["error"] for row in found[:2])


@pytest.mark.slow
def test_rows_that_kill_their_process_are_set_aside(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"a delight {i}" for i in range(30)]
    values = [dying_calls.FATAL if i in (4, 21) else text for i, text in enumerate(texts)]
    write(tmp_path / "in" / "a.parquet", text=values)
    write(tmp_path / "in" / "b.parquet", text=texts)
    tasks = bulk._tasks

    def dying_tasks(*arguments: Any) -> list[bulk.Task]:
        made = tasks(*arguments)
        calls = {bulk.ranges.predict_ranges: dying_calls.predict_or_die}
        return [bulk.Task(task.name, calls.get(task.call, task.call), task.arguments, task.needs) for task in made]

    monkeypatch.setattr(bulk, "_tasks", dying_tasks)
    report = predict_files(text_bundle, tmp_path / "in", tmp_path / "out", EngineSettings(workers=1), rows_per_task=20)
    assert (report["rows"], report["errors"]) == (60, 2)
    assert [row["error"] for row in rows(tmp_path / "out" / "b.parquet")] == [None] * 30
    reasons = {i: row["error"] for i, row in enumerate(rows(tmp_path / "out" / "a.parquet")) if row["error"]}
    assert reasons == {4: CrashRecord.reason, 21: CrashRecord.reason}
    assert not (tmp_path / "out" / ".rekd-edge").exists()


def test_crash_record_narrows_down_to_the_row(tmp_path: Path) -> None:
    file = tmp_path / "record.json"

    def work(fatal: int) -> list[tuple[int, int]]:
        """What a process does with rows 0 to 6 in batches of three, until the row at which it dies."""
        record, seen = CrashRecord(file), []
        for start in (0, 3):
            for first, last in record.steps(start, start + 3):
                if first in record.fatal:
                    continue
                record.enter(first, last)
                seen.append((first, last))
                if first <= fatal < last:
                    return seen
        record.__exit__(None, None, None)
        return seen

    assert work(4) == [(0, 3), (3, 6)]
    assert work(4) == [(0, 3), (3, 4), (4, 5)]
    assert fatal_rows(file) == set()
    assert work(4) == [(0, 3), (3, 4), (4, 5)]
    assert fatal_rows(file) == {4}
    assert work(4) == [(0, 3), (3, 4), (5, 6)]
    assert not file.exists()


@pytest.mark.parametrize("content", ["", "{}", '{"deaths": 3, "at": null}', '{"deaths": [[0]], "at": [0, 1]}'])
def test_damaged_crash_record_counts_for_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(content)
    assert list(CrashRecord(tmp_path / "record.json").steps(0, 9)) == [(0, 9)]

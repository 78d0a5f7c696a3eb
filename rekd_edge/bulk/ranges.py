"""Row ranges: the parts of the input files to predict, their results, and how these are joined.

A file is divided into ranges of rows, each predicted by one worker into a file of its own in the output's staging
folder. Once all are there they are joined, in order, into the file's result. A file of one range needs no joining.

    OUTPUT/NAME                               the result of an input file, under the input's name
    OUTPUT/.rekd-edge/DIGEST-START-STOP.parquet   the result of a range; DIGEST is that of the input's name
    OUTPUT/.rekd-edge/DIGEST-START-STOP.json      which rows of it are being predicted (see `crashes`)
    OUTPUT/.rekd-edge/RANDOM.tmp              a result that is being written
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rekd_edge.bulk.crashes import CrashRecord
from rekd_edge.bulk.inputs import STAGING, InputFile, reading
from rekd_edge.bulk.rows import ERROR, failed_batch, output_fields, predict_batch
from rekd_edge.errors import FailureError, InputError, RekdEdgeError
from rekd_edge.files import claim_folder, create_file, inside, real_folder, remove_ours, sync_folder
from rekd_edge.process import is_full_disk
from rekd_edge.runtime import Rationalizer

__all__ = ["Plan", "RowRange", "join_ranges", "predict_ranges"]

KEY = b"rekd_edge"
TEXTS, IMAGES = 1024, 64  # rows in memory at a time
ROW_GROUP = 1 << 25  # bytes, uncompressed, of a row group of a result
BUFFER = 1 << 20  # bytes of each column read ahead
PURPOSE = "results that are not finished"
_OURS = re.compile(r"[0-9a-f]{16}-\d+-\d+\.(parquet|json)|\.?[0-9a-f]{16}.*\.tmp")
"""Names of our files in the staging folder."""


@dataclass(frozen=True)
class RowRange:
    """Rows `start` to `stop` of a file."""

    file: InputFile
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.file.name} {self.start}-{self.stop}"

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    @property
    def path(self) -> Path:
        """The place of its result, which is the file's own if the range is the whole file."""
        if self.rows == self.file.rows:
            return self.file.target
        return self._staged("parquet")

    @property
    def crash_record(self) -> Path:
        """The record of the rows that a worker predicts."""
        return self._staged("json")

    @property
    def finished(self) -> bool:
        """Whether its result exists."""
        return _is_result(self.path, self.file.fingerprint, self.rows)

    def _staged(self, suffix: str) -> Path:
        digest = hashlib.sha256(self.file.name.encode()).hexdigest()[:16]
        return self.file.staging / f"{digest}-{self.start}-{self.stop}.{suffix}"


@dataclass(frozen=True)
class Plan:
    """All files, the groups of row ranges to predict (one group per task), and the files to join from ranges."""

    files: list[InputFile]
    groups: list[list[RowRange]]
    divided: dict[InputFile, list[RowRange]]

    @classmethod
    def of(cls, files: list[InputFile], output: Path, rows_per_task: int) -> Plan:
        """Plan what the output lacks, and remove what an earlier call left half-written.

        Raises:
            InputError: a Parquet file in the output is not the result of one of the inputs, a folder in it is a link,
                or the staging folder holds foreign files.
        """
        _check_results(files, output)
        left = [file for file in files if not file.target.exists()]
        ranges = {file: _divide(file, rows_per_task) for file in left}
        wanted = {part.path: part for parts in ranges.values() for part in parts}

        real_folder(output)

        staging = claim_folder(output / STAGING, PURPOSE)
        for name in _own_files(staging):
            path = staging / name
            if not (path in wanted and wanted[path].finished):
                path.unlink()

        to_do = [part for part in wanted.values() if not part.path.exists()]
        divided = {file: parts for file, parts in ranges.items() if len(parts) > 1}
        return cls(files, _group(to_do, rows_per_task), divided)

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def rows_to_do(self) -> int:
        """Rows that are not predicted yet."""
        return sum(part.rows for group in self.groups for part in group)

    def finish(self) -> None:
        """Remove the staging folder, unless it holds foreign files."""
        staging = self.files[0].staging
        with suppress(OSError):
            remove_ours(staging, PURPOSE, _own_files(staging))

    def rows_with_errors(self) -> int:
        """How many rows of the finished files have no prediction."""
        count = 0
        for file in self.files:
            with pq.ParquetFile(file.target) as result:
                for (column,) in (batch.columns for batch in result.iter_batches(columns=[ERROR])):
                    count += len(column) - column.null_count
        return count


def predict_ranges(bundle: Path, ranges: Sequence[RowRange], threads: int) -> list[str]:
    """Predict ranges of rows; finished ones are left as they are.

    Returns:
        A sentence for each range that could not be predicted; it names the file.

    Raises:
        FailureError: there is no space left.
        InputError: the bundle cannot be opened.
    """
    rationalizer = Rationalizer.load(bundle, threads=threads, verify=False)
    errors: list[str] = []

    for part in ranges:
        try:
            if not part.finished:
                _predict_range(rationalizer, part)
        except FailureError:
            raise
        except RekdEdgeError as error:
            errors.append(str(error))
        except Exception as error:  # no error may keep the other files from their results
            words = " ".join(str(error).split())[:300]
            errors.append(f"{part} could not be predicted ({type(error).__name__}: {words}).")

    return errors


def join_ranges(file: InputFile, ranges: Sequence[RowRange]) -> None:
    """Join a divided file's result and remove those of its ranges.

    Raises:
        InputError: a range could not be predicted.
        FailureError: there is no space left.
    """
    if not _is_result(file.target, file.fingerprint, file.rows):
        missing = next((part for part in ranges if not part.finished), None)
        if missing is not None:
            raise InputError(f"{missing} is not predicted.")

        with _result(file, file.target, pq.read_schema(ranges[0].path)) as writer:
            for part in ranges:
                with pq.ParquetFile(part.path) as result:
                    for group in range(result.num_row_groups):
                        writer.write_table(result.read_row_group(group))

    for part in ranges:
        part.path.unlink(missing_ok=True)


def _predict_range(rationalizer: Rationalizer, part: RowRange) -> None:
    file = part.file
    with reading(file.path):
        schema = output_fields(pq.read_schema(file.path), file.column, rationalizer.manifest)

    held: list[pa.RecordBatch] = []
    with CrashRecord(part.crash_record) as record, _result(file, part.path, schema) as writer:
        for start, batch in _read_rows(part, TEXTS if rationalizer.manifest.text else IMAGES):
            for first, last in record.steps(start, start + len(batch)):
                rows = batch.slice(first - start, last - first)
                if first in record.fatal:
                    held.append(failed_batch(rows, file.column, schema, record.reason))
                else:
                    record.enter(first, last)
                    held.append(predict_batch(rows, file.column, rationalizer, schema, file.path.parent))

            if sum(batch.nbytes for batch in held) >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(held))
                held.clear()

        if held:
            writer.write_table(pa.Table.from_batches(held))


def _read_rows(part: RowRange, rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches of the rows of a range, each with the number of its first row.

    Row groups are read from their beginning, so pages before the range are read too.
    """
    with reading(part.file.path), pq.ParquetFile(part.file.path, pre_buffer=False, buffer_size=BUFFER) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = [sum(sizes[: group + 1]) for group in range(len(sizes))]
        held = [g for g, end in enumerate(ends) if end > part.start and end - sizes[g] < part.stop]
        position = ends[held[0]] - sizes[held[0]] if held else 0

        for batch in file.iter_batches(rows, row_groups=held):
            first, last = max(part.start - position, 0), min(part.stop - position, len(batch))
            if first < last:
                yield position + first, batch.slice(first, last - first)
            position += len(batch)


@contextmanager
def _result(file: InputFile, path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer of a result, which is moved to its place once it is complete."""
    real_folder(file.staging)
    if path == file.target:
        inside(file.output, file.name).parent.mkdir(parents=True, exist_ok=True)

    unfinished = file.staging / f"{secrets.token_hex(8)}.tmp"
    try:
        with create_file(unfinished) as sink:
            with pq.ParquetWriter(sink, schema.with_metadata({KEY: file.fingerprint}), compression="zstd") as writer:
                yield writer
            sink.flush()
            os.fsync(sink.fileno())

        os.replace(unfinished, path)
        sync_folder(path.parent)
    except Exception as error:
        if is_full_disk(error):
            raise FailureError(f"There is no space left for {path}; free some and run the command again.") from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _own_files(staging: Path) -> list[str]:
    """The names of our files in the staging folder."""
    return [path.name for path in staging.iterdir() if _OURS.fullmatch(path.name)]


def _divide(file: InputFile, rows_per_task: int) -> list[RowRange]:
    """Divide a file into ranges of about the same size, at most `rows_per_task` rows each."""
    count = max(1, -(-file.rows // rows_per_task))
    bounds = [file.rows * i // count for i in range(count + 1)]
    return [RowRange(file, start, stop) for start, stop in pairwise(bounds)]


def _group(ranges: Sequence[RowRange], rows_per_task: int) -> list[list[RowRange]]:
    """Group neighbouring ranges up to `rows_per_task` rows."""
    groups: list[list[RowRange]] = []
    held = 0

    for part in ranges:
        held += part.rows
        if groups and held <= rows_per_task:
            groups[-1].append(part)
        else:
            groups.append([part])
            held = part.rows

    return groups


def _check_results(files: Sequence[InputFile], output: Path) -> None:
    """Refuse files in the output that a reader would mistake for results of this call."""
    targets = {inside(output, file.name): file for file in files}
    for path in sorted({*output.rglob("*.parquet"), *(target for target in targets if target.exists())}):
        if path.is_dir() or STAGING in path.relative_to(output).parts:
            continue

        file = targets.get(path)
        if file is None or not _is_result(path, file.fingerprint, file.rows):
            raise InputError(
                f"{path} is not the result of this bundle, input and column; remove it or give --output another folder."
            )


def _is_result(path: Path, fingerprint: str, rows: int) -> bool:
    if path.is_symlink() or not path.exists():
        return False

    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return False

    return metadata.num_rows == rows and (metadata.metadata or {}).get(KEY) == fingerprint.encode()

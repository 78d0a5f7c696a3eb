"""Files in pieces that workers take: what is to do, what an earlier call has done, and files made whole again."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rekd_edge.bulk.inputs import STAGING, InputFile, reading
from rekd_edge.bulk.rows import ERROR, output_fields, predict_batch
from rekd_edge.errors import FailureError, InputError, RekdEdgeError
from rekd_edge.runtime import Rationalizer

__all__ = ["Piece", "Plan", "join_pieces", "predict_pieces"]

KEY = b"rekd_edge"
TEXTS, IMAGES = 1024, 64  # rows in memory at a time
ROW_GROUP = 1 << 25  # bytes, uncompressed, of a row group of a result
BUFFER = 1 << 20  # bytes of each column read ahead


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` of a file."""

    file: InputFile
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.file.name} {self.start}-{self.stop}"

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.stop - self.start

    @property
    def path(self) -> Path:
        """Where its result goes: to the file's own place if it is the whole file."""
        if self.rows == self.file.rows:
            return self.file.target
        return self.file.staging / self.file.name / f"{self.start}-{self.stop}.parquet"

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return _is_result(self.path, self.file.fingerprint, self.rows)


@dataclass(frozen=True)
class Plan:
    """All files, the groups of pieces to predict, one a task, and the divided files that are not whole yet."""

    files: list[InputFile]
    groups: list[list[Piece]]
    divided: dict[InputFile, list[Piece]]

    @classmethod
    def of(cls, files: list[InputFile], output: Path, rows_per_task: int) -> Plan:
        """Compare with what lies in the output, and remove from it what an earlier call left half-written.

        Raises:
            InputError: a Parquet file in the output is not the result of one of the inputs.
        """
        _check_results(files, output)
        left = [file for file in files if not file.target.exists()]
        pieces = {file: _divide(file, rows_per_task) for file in left}
        wanted = {piece.path: piece for some in pieces.values() for piece in some}
        for path in (output / STAGING).rglob("*"):
            if path.is_file() and not (path in wanted and wanted[path].finished):
                path.unlink()
        to_do = [piece for piece in wanted.values() if not piece.path.exists()]
        return cls(files, _group(to_do, rows_per_task), {file: some for file, some in pieces.items() if len(some) > 1})

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def rows_to_do(self) -> int:
        """Rows that are not predicted yet."""
        return sum(piece.rows for group in self.groups for piece in group)

    def finish(self) -> None:
        """Remove the folder of what was not finished."""
        shutil.rmtree(self.files[0].staging, ignore_errors=True)

    def rows_with_errors(self) -> int:
        """How many rows of the finished files have no prediction."""
        count = 0
        for file in self.files:
            with pq.ParquetFile(file.target) as result:
                for (column,) in (batch.columns for batch in result.iter_batches(columns=[ERROR])):
                    count += len(column) - column.null_count
        return count


def predict_pieces(bundle: Path, pieces: Sequence[Piece], threads: int) -> None:
    """Predict pieces of files; one that is finished is left as it is.

    Raises:
        InputError: a file is damaged; the other pieces are predicted all the same.
        FailureError: there is no space left.
    """
    rationalizer = Rationalizer.load(bundle, threads=threads, verify=False)
    errors: list[RekdEdgeError] = []
    for piece in pieces:
        try:
            if not piece.finished:
                _predict_piece(rationalizer, piece)
        except InputError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def join_pieces(file: InputFile, pieces: Sequence[Piece]) -> None:
    """Make a divided file's result whole and remove its pieces.

    Raises:
        FailureError: there is no space left.
    """
    if not _is_result(file.target, file.fingerprint, file.rows):
        with _result(file, file.target, pq.read_schema(pieces[0].path)) as writer:
            for piece in pieces:
                with pq.ParquetFile(piece.path) as part:
                    for group in range(part.num_row_groups):
                        writer.write_table(part.read_row_group(group))
    for piece in pieces:
        piece.path.unlink(missing_ok=True)


def _predict_piece(rationalizer: Rationalizer, piece: Piece) -> None:
    file = piece.file
    with reading(file.path):
        schema = output_fields(pq.read_schema(file.path), file.column, rationalizer.manifest)
    held: list[pa.RecordBatch] = []
    with _result(file, piece.path, schema) as writer:
        for batch in _read_rows(piece, TEXTS if rationalizer.manifest.text else IMAGES):
            held.append(predict_batch(batch, file.column, rationalizer, schema, file.path.parent))
            if sum(batch.nbytes for batch in held) >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(held))
                held.clear()
        if held:
            writer.write_table(pa.Table.from_batches(held))


def _read_rows(piece: Piece, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a piece, some at a time; of the row groups that hold them the pages before are read too."""
    with reading(piece.file.path), pq.ParquetFile(piece.file.path, pre_buffer=False, buffer_size=BUFFER) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = [sum(sizes[: group + 1]) for group in range(len(sizes))]
        held = [g for g, end in enumerate(ends) if end > piece.start and end - sizes[g] < piece.stop]
        position = ends[held[0]] - sizes[held[0]] if held else 0
        for batch in file.iter_batches(rows, row_groups=held):
            first, last = max(piece.start - position, 0), min(piece.stop - position, len(batch))
            position += len(batch)
            if first < last:
                yield batch.slice(first, last - first)


@contextmanager
def _result(file: InputFile, path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer of a result that is at its place only once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file.staging.mkdir(parents=True, exist_ok=True)
    unfinished = file.staging / f"{uuid.uuid4().hex}.tmp"
    try:
        with pq.ParquetWriter(unfinished, schema.with_metadata({KEY: file.fingerprint}), compression="zstd") as writer:
            yield writer
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise FailureError(f"There is no space left for {path}; free some and run the command again.") from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _divide(file: InputFile, rows_per_task: int) -> list[Piece]:
    """A file in pieces of about the same size, none above `rows_per_task`."""
    count = max(1, -(-file.rows // rows_per_task))
    bounds = [file.rows * i // count for i in range(count + 1)]
    return [Piece(file, start, stop) for start, stop in pairwise(bounds)]


def _group(pieces: Sequence[Piece], rows_per_task: int) -> list[list[Piece]]:
    """Neighbours together as long as they have no more than `rows_per_task` rows."""
    groups: list[list[Piece]] = []
    held = 0
    for piece in pieces:
        held += piece.rows
        if groups and held <= rows_per_task:
            groups[-1].append(piece)
        else:
            groups.append([piece])
            held = piece.rows
    return groups


def _check_results(files: Sequence[InputFile], output: Path) -> None:
    """Refuse what a reader of the output folder would take for a result of this call and is none."""
    targets = {file.target: file for file in files}
    for path in sorted({*output.rglob("*.parquet"), *(target for target in targets if target.exists())}):
        if path.is_dir() or STAGING in path.relative_to(output).parts:
            continue
        file = targets.get(path)
        if file is None or not _is_result(path, file.fingerprint, file.rows):
            raise InputError(
                f"{path} is not the result of this bundle, input and column; remove it or give --output another folder."
            )


def _is_result(path: Path, fingerprint: str, rows: int) -> bool:
    if not path.exists():
        return False
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return False
    return metadata.num_rows == rows and (metadata.metadata or {}).get(KEY) == fingerprint.encode()

"""The Parquet files to read, their columns, and the places of the results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rekd_edge.bulk.rows import output_fields
from rekd_edge.columns import IMAGE_COLUMNS, TEXT_COLUMNS
from rekd_edge.errors import InputError
from rekd_edge.files import sha256_of
from rekd_edge.runtime.bundle import LAYOUT, Manifest

__all__ = ["STAGING", "InputFile", "find_inputs", "reading"]

STAGING = ".rekd-edge"
"""The folder in the output for unfinished results."""
FORMAT = 1
"""Changed whenever the columns of a result change."""


@dataclass(frozen=True)
class InputFile:
    """A Parquet file to predict."""

    path: Path
    name: str
    """Its path under the input folder, and its result's path under the output folder."""
    output: Path
    rows: int
    column: str
    fingerprint: str
    """A digest of this file's content, the bundle and the column; the metadata of the result has it too."""

    @property
    def target(self) -> Path:
        """The place of the result."""
        return self.output / self.name

    @property
    def staging(self) -> Path:
        """The place of the result until it is finished."""
        return self.output / STAGING


def find_inputs(
    bundle: Path, source: Path, output: Path, text_column: str | None, image_column: str | None
) -> list[InputFile]:
    """The Parquet files of a folder (hidden ones left out) or the single one, checked before anything is written.

    Raises:
        InputError: there is none, one is damaged or lacks the column, the folders lie in one another, or the bundle is
            damaged or of another kind than the column.
    """
    manifest = Manifest.load(bundle)
    paths = {path: str(path.relative_to(_root(source))) for path in _parquet_files(source)}
    _check_folders(source, output)
    identity = hashlib.sha256((bundle / LAYOUT.manifest).read_bytes()).hexdigest()
    files = []

    for path, name in paths.items():
        with reading(path), pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows

        column = _find_column(path, schema, manifest, text_column, image_column)
        output_fields(schema, column, manifest)  # raises what a worker would raise
        made_of = {"format": FORMAT, "bundle": identity, "input": sha256_of(path), "column": column}
        files.append(InputFile(path, name, output, rows, column, json.dumps(made_of)))

    return files


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn pyarrow's errors about a damaged file into one sentence."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"{path} cannot be read as Parquet ({reason}); correct or remove it.") from error


def _root(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _parquet_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(f"{source} does not exist; give --input a Parquet file or a folder of them.")

    found = sorted(path for path in source.rglob("*.parquet") if path.is_file())
    shown = [path for path in found if not any(part.startswith(".") for part in path.relative_to(source).parts)]
    if not shown:
        raise InputError(f"{source} holds no .parquet files; give --input a Parquet file or a folder of them.")

    return shown


def _check_folders(source: Path, output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; give --output a folder.")
    inside = output.is_relative_to(source) or (output == source.parent and source.is_file())
    if inside or (source.is_dir() and source.is_relative_to(output)):
        raise InputError(f"{output} and the input {source} lie in one another; give --output a folder of its own.")


def _find_column(
    path: Path, schema: pa.Schema, manifest: Manifest, text_column: str | None, image_column: str | None
) -> str:
    kind, other, given = ("text", image_column, text_column) if manifest.text else ("image", text_column, image_column)
    if other is not None:
        raise InputError(f"The bundle classifies {kind}s; name their column with --{kind}-column.")

    names: Sequence[str] = schema.names
    if len(set(names)) < len(names):
        raise InputError(f"{path} has two columns of the same name; rename one.")

    known = TEXT_COLUMNS if manifest.text else IMAGE_COLUMNS
    column = given or next((name for name in known if name in names), None)
    if column is None or column not in names:
        lacks = f"no column {column!r}" if column else f"no {kind} column that is known by its name"
        listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        raise InputError(f"{path} has {lacks}, only: {listed}; name it with --{kind}-column.")

    if not (_is_text if manifest.text else _is_image)(schema.field(column).type):
        raise InputError(f"The column {column!r} of {path} holds no {kind}s; name another with --{kind}-column.")

    return column


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return _is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

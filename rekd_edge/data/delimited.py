"""CSV files as spreadsheets and scripts write them: any common delimiter, UTF-8, UTF-16 or Windows-1252.

bytes ──► encoding ──► delimiter and header ──► one column of strings each
"""

from __future__ import annotations

import codecs
import csv
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rekd_edge.errors import InputError
from rekd_edge.progress import say
from rekd_edge.settings import shown

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["encoding_of", "read_csv"]

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_DELIMITERS = (",", ";", "\t", "|")
_LOOKED_AT = 20
"""Rows from which the delimiter is told."""
_BLOCK = 1 << 26
"""Bytes that are parsed at a time; no row may be longer."""


def read_csv(path: Path) -> pa.Table:
    """The columns of a CSV file as strings; only an empty field without quotes is missing.

    Raises:
        InputError: the file is not text, has no rows or a column twice, a row has another number of fields, or a quote
            is never closed.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow

    encoding = encoding_of(path)
    if encoding is None:
        encoding = "cp1252" if _is_text(path, "cp1252") else "latin-1"
        say(f"{path} is not UTF-8; it is read as {encoding}.")

    delimiter, header = _shape(path, encoding)
    if (twice := next((name for name in header if header.count(name) > 1), None)) is not None:
        raise InputError(f"{path} has two columns that are called {shown(twice)}; rename or remove one of them.")

    try:
        table = arrow.read_csv(
            str(path),
            # a single thread counts the rows, for the error
            arrow.ReadOptions(use_threads=False, encoding=encoding.removesuffix("-sig"), block_size=_BLOCK),
            arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            arrow.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split()).removeprefix("CSV parse error: ")
        raise InputError(f"{path} cannot be read as csv ({shown(reason)[1:-1]}); correct that row.") from error

    if table.num_rows and _ends_within_quotes(path, encoding, delimiter, table[-1][-1].as_py()):
        raise InputError(f"{path} has a quote that is never closed, in row {table.num_rows}; close or remove it.")

    return table


def encoding_of(path: Path) -> str | None:
    """`utf-8`, or the encoding that a byte order mark names; None for text in an older one.

    Raises:
        InputError: the file is empty, or not text.
    """
    with path.open("rb") as file:
        start = file.read(4096)

    if not start.strip():
        raise InputError(f"{path} is empty; fill or remove it.")

    marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    if b"\0" in start and marked != "utf-16":
        raise InputError(f"{path} is not text; save it as CSV or JSON lines, in UTF-8.")

    encoding = marked or "utf-8"
    return encoding if _is_text(path, encoding) else None


def _is_text(path: Path, encoding: str) -> bool:
    try:
        with path.open(encoding=encoding, newline="") as file:
            while file.read(1 << 20):
                pass
    except UnicodeError:
        return False

    return True


def _ends_within_quotes(path: Path, encoding: str, delimiter: str, last: str | None) -> bool:
    """Whether the last field is quoted up to the end of the file, which Arrow takes for the end of the field too."""
    if encoding == "utf-16":  # of two byte orders
        with path.open("rb") as file:
            encoding = "utf-16-le" if file.read(2) == codecs.BOM_UTF16_LE else "utf-16-be"

    # what stands before the quote tells an opening one from a quote in the text
    quoted = '"' + (last or "").replace('"', '""')
    tails = [(before + quoted).encode(encoding.removesuffix("-sig")) for before in (delimiter, "\n", "\r")]
    size = path.stat().st_size

    with path.open("rb") as file:
        file.seek(max(size - len(tails[0]), 0))
        return file.read() in tails


def _shape(path: Path, encoding: str) -> tuple[str, list[str]]:
    """The delimiter that gives the first rows as many fields as the header, and the header."""
    candidates = []
    for delimiter in _DELIMITERS:
        with path.open(encoding=encoding, newline="") as file:
            try:
                header, *rows = islice(filter(None, csv.reader(file, delimiter=delimiter)), _LOOKED_AT)
            except (csv.Error, ValueError) as error:
                raise InputError(f"{path} cannot be read as csv ({error}); correct or replace it.") from error

        alike = sum(len(row) == len(header) for row in rows)
        candidates.append((len(header) > 1, alike, len(header), delimiter, header))

    *_, delimiter, header = max(candidates, key=lambda candidate: candidate[:3])
    return delimiter, header

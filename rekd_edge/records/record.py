"""One decision as a line of JSON that carries its own SHA-256 and that of the line before it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.records.schema import RECORD_SCHEMA, SCHEMA
from rekd_edge.runtime.schema import violation
from rekd_edge.runtime.seal import LAYOUT, sha256_of

__all__ = [
    "FIRST",
    "SCHEMA",
    "as_line",
    "hash_of_input",
    "parse",
    "processor_kind",
    "read_records",
    "records_of",
    "seal",
]

FIRST = "0" * 64
"""What the first record names as the one before it."""
LONGEST_RECORD = 2**26


def seal(record: dict[str, Any]) -> str:
    """The SHA-256 of a record without its own `sha256`, in hexadecimal digits."""
    rest = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(
        json.dumps(rest, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ).hexdigest()


def as_line(record: dict[str, Any]) -> bytes:
    """A record as it is written."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def parse(line: bytes, place: str) -> dict[str, Any]:
    """A record from its line.

    Args:
        line: UTF-8, with its line feed.
        place: where it stands, for messages.

    Raises:
        InputError: it is no record, of a later schema, or was changed.
    """
    try:
        record = json.loads(line)
        whole = isinstance(record, dict) and line == as_line(record) and record.get("sha256") == seal(record)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not a record of a decision; it was cut or changed.") from error

    if not isinstance(record, dict) or not isinstance(record.get("schema"), int) or "sha256" not in record:
        raise InputError(f"{place} is not a record of a decision; it was cut or changed.")
    if record["schema"] > SCHEMA:
        raise InputError(
            f"{place} has schema {record['schema']}, this version reads {SCHEMA}; install a newer rekd-edge."
        )
    if not whole:  # digits may change without the number
        raise InputError(f"{place} was changed after it was written: its SHA-256 is another.")

    wrong = violation(record, RECORD_SCHEMA)
    if wrong is None and record["label"] not in record["scores"]:
        wrong = "label has no score"
    if wrong is not None:
        raise InputError(f"{place} is not a record of a decision ({wrong}); it was made by something else.")

    return record


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, one after the other, each held against its SHA-256 and the record before it.

    Raises:
        InputError: the file cannot be read, or a line was changed, cut, removed or moved; the sentence names it.
    """
    before = FIRST
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_RECORD), b""), start=1):
                place = f"Line {number} of {path}"
                if not line.endswith(b"\n"):
                    raise InputError(f"{place} is cut; the call that wrote it was stopped, or the file was changed.")

                record = parse(line, place)
                if record["previous"] != before:
                    raise InputError(
                        f"{place} does not follow the line before it; a record was removed, added or moved."
                    )

                before = record["sha256"]
                yield record
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); give a file that predict --record wrote."
        ) from error


def records_of(path: Path, bundle: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, all of which must be of one bundle.

    Raises:
        InputError: as for `read_records`; a record is of another bundle.
    """
    manifest = sha256_of(bundle / LAYOUT.manifest)
    for number, record in enumerate(read_records(path), start=1):
        if record["manifest_sha256"] != manifest:
            raise InputError(f"Line {number} of {path} was decided by another bundle than {bundle}; give that one.")
        yield record


def hash_of_input(source: Any) -> str:
    """SHA-256 of a text's UTF-8 form, of an image file's content, or of an array's shape and bytes."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if hasattr(source, "tobytes"):  # arrays and PIL images
        shape: Any = getattr(source, "shape", None) or getattr(source, "size", ())
        return hashlib.sha256(json.dumps([*map(int, shape)]).encode() + source.tobytes()).hexdigest()
    if isinstance(source, Path):
        return hashlib.sha256(source.read_bytes()).hexdigest()
    return hashlib.sha256(str(source).encode("utf-8", "surrogatepass")).hexdigest()


@cache
def processor_kind() -> str:
    """The architecture and, where Linux tells it, the model of the processor."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    model = models[0].partition(":")[2].strip() if models else platform.processor()
    return f"{platform.machine()} {model}".strip()

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

__all__ = ["FIRST", "SCHEMA", "as_line", "hash_of_input", "parse", "processor_kind", "read_records", "seal"]

SCHEMA = 1
FIRST = "0" * 64
"""What the first record names as the one before it."""
LONGEST_RECORD = 2**26
FIELDS = {
    "schema": int,
    "time": str,
    "input_sha256": str,
    "manifest_sha256": str,
    "label": str,
    "label_id": int,
    "logits": list,
    "scores": dict,
    "selected": list,
    "margins": list,
    "near_ties": int,
    "rationale_ratio": float,
    "runtime": dict,
    "previous": str,
    "sha256": str,
}
"""Fields that every record has, and their types; texts have `rationale` and `truncated` besides."""


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
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not a record of a decision; it was cut or changed.") from error

    if not isinstance(record, dict) or any(not isinstance(record.get(name), kind) for name, kind in FIELDS.items()):
        raise InputError(f"{place} is not a record of a decision; it was cut or changed.")
    if record["schema"] > SCHEMA:
        raise InputError(
            f"{place} has schema {record['schema']}, this version reads {SCHEMA}; install a newer rekd-edge."
        )
    if record["sha256"] != seal(record) or line != as_line(record):  # digits may change without the number
        raise InputError(f"{place} was changed after it was written: its SHA-256 is another.")

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

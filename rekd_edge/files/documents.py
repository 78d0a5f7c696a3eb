"""The JSON files beside a model, and the digest by which a file is recognised."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.files.atomic import BINARY, NO_LINK, write_text

__all__ = ["read_json", "sha256_of", "write_json"]

BLOCK = 2**20


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is missing, damaged or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; restore it or train the run again.") from error
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8, or nested without end
        raise InputError(f"{path} is damaged; restore it or train the run again.") from error

    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object; restore it or train the run again.")

    return content


def write_json(path: Path, content: dict[str, Any], durable: bool = True) -> None:
    """Write a JSON object, whole or not at all; numbers must be finite, and `durable` is as for `replacing`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", durable)


def sha256_of(path: Path, follow_links: bool = True) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: the file cannot be read, or is a link where none may be followed.
    """
    digest = hashlib.sha256()
    flags = os.O_RDONLY | BINARY | (0 if follow_links else NO_LINK)
    with os.fdopen(os.open(path, flags), "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()

"""The JSON files beside a model, and how files are known again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError

__all__ = ["read_json", "sha256_of", "write_json", "write_whole"]

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
    except ValueError as error:  # not JSON, or not UTF-8
        raise InputError(f"{path} is damaged; restore it or train the run again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object; restore it or train the run again.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, whole or not at all; numbers must be finite."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()

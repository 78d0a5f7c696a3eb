"""The JSON files beside a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError

__all__ = ["read_json", "write_json"]


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
    """Write a JSON object; numbers must be finite."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")

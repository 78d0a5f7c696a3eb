"""The marker in folders that this package made for itself: only what carries it is ever deleted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from rekd_edge.errors import InputError
from rekd_edge.files.atomic import BINARY, NO_LINK, create_file
from rekd_edge.files.paths import real_folder

__all__ = ["MARKER", "claim_folder", "is_ours", "remove_ours", "remove_unclaimed"]

MARKER = ".made-by-rekd-edge"
"""A file in a folder of ours: a JSON object that says what the folder is for."""
LARGEST = 4096  # bytes of a marker


def claim_folder(path: Path, purpose: str) -> Path:
    """Make a folder that is ours, or take one that carries the marker of the same purpose or is empty.

    Args:
        path: of the folder.
        purpose: what the folder is for; a folder made for another purpose is not taken.

    Raises:
        InputError: the path is a link or a file, or the folder holds files and no marker of ours.
    """
    real_folder(path)
    if not is_ours(path, purpose):
        _drop_empty_marker(path)
        if any(path.iterdir()):
            raise InputError(f"{path} holds files that rekd-edge did not put there; move them away.")
        with create_file(path / MARKER) as file:
            file.write(json.dumps({"made by": "rekd-edge", "for": purpose}).encode())

    return path


def is_ours(path: Path, purpose: str) -> bool:
    """Whether a path is a folder, and no link to one, that `claim_folder` made for this purpose."""
    if path.is_symlink() or not path.is_dir():
        return False

    try:
        with os.fdopen(os.open(path / MARKER, os.O_RDONLY | NO_LINK | BINARY), "rb") as file:
            return json.loads(file.read(LARGEST)) == {"made by": "rekd-edge", "for": purpose}
    except (OSError, ValueError, RecursionError):
        return False


def remove_unclaimed(path: Path) -> None:
    """Remove a folder that was made but not claimed before its call was killed; one that holds anything stays."""
    with suppress(OSError):
        _drop_empty_marker(path)
        path.rmdir()


def _drop_empty_marker(path: Path) -> None:
    marker = path / MARKER
    if marker.is_file() and not marker.is_symlink() and marker.stat().st_size == 0:
        marker.unlink()


def remove_ours(path: Path, purpose: str, parts: Collection[str] | None = None) -> bool:
    """Delete a folder of ours with all that it holds; links in it are deleted, and not what they point to.

    Args:
        path: of the folder.
        purpose: what it was claimed for; a folder of another purpose is left alone.
        parts: names of what we put there, where a user may have put something too; the rest is kept, and the folder
            with it.

    Returns:
        Whether the folder was ours and is gone.
    """
    if not is_ours(path, purpose):
        return False

    names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in os.scandir(path)}
    kept = set() if parts is None else names.keys() - {MARKER, *parts}
    for name in names.keys() - {MARKER, *kept}:
        if names[name]:
            shutil.rmtree(path / name)
        else:
            (path / name).unlink()

    if kept:
        return False

    (path / MARKER).unlink()  # last: what is left of a deletion that was cut off is still ours
    path.rmdir()
    return True

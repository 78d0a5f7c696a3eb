"""Files that are whole or absent, also after a crash or a power cut."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["create_file", "replacing", "sync_folder", "sync_tree", "write_text"]

NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has none
BINARY = getattr(os, "O_BINARY", 0)  # Windows alone has it


def create_file(path: Path) -> BinaryIO:
    """Create and open a file that must not exist yet, neither as a file nor as a link.

    Raises:
        FileExistsError: something lies there.
    """
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINK | BINARY, 0o666), "w+b")


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield an empty file beside `path` that takes its place on success and vanishes on failure.

    The file has an unpredictable hidden name and the permissions that the umask allows. Where `path` is a link, the
    link is replaced and not what it points to.

    Args:
        path: of the file.
        durable: wait until the content is on the disk; not needed for what nobody reads after a crash.
    """
    unfinished = path.with_name(f".{path.name.removeprefix('.')}.{secrets.token_hex(8)}.tmp")
    create_file(unfinished).close()

    try:
        yield unfinished
        if durable:
            sync_file(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise

    if durable:
        sync_folder(path.parent)


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Write a UTF-8 file, whole or not at all; `durable` as for `replacing`."""
    with replacing(path, durable) as unfinished:
        unfinished.write_bytes(text.encode("utf-8"))


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    descriptor = os.open(path, os.O_RDWR | NO_LINK | BINARY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows cannot be asked for that."""
    if os.name == "nt":
        return

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until a folder with all that it holds is on the disk; links are passed over."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            sync_tree(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            sync_file(Path(entry.path))
    sync_folder(folder)

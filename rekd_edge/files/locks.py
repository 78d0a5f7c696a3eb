"""One call at a time writes to an output."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path

from rekd_edge.errors import InputError
from rekd_edge.files.atomic import write_text
from rekd_edge.files.paths import check_place

__all__ = ["locked"]

_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())
"""Outputs that this call has locked, so that the steps of a call can each ask for the lock."""
FOREVER, NOT_AT_ALL = -1.0, 0.0


@contextmanager
def locked(output: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of an output folder, which need not exist yet.

    The lock is `.NAME.lock` beside the folder, and who holds it stands in `.NAME.lock.json`. The system releases it
    when its holder dies, however that happens. A call that holds a lock may ask for it again, and has the folders
    below with it.

    Args:
        output: the folder to be written to; a link stands for the folder that it points to.
        wait: wait for the holder instead of failing.

    Raises:
        InputError: another call holds the lock, or there can be no such folder.
    """
    from filelock import FileLock, Timeout  # not on a device

    output = Path(os.path.realpath(output))
    if any(output.is_relative_to(folder) for folder in _held.get()):
        yield
        return

    check_place(output)
    made = [parent for parent in output.parents if not parent.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    path, holder = (output.with_name(f".{output.name}.{end}") for end in ("lock", "lock.json"))

    try:
        with FileLock(path, timeout=FOREVER if wait else NOT_AT_ALL):
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            write_text(holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
            token = _held.set(_held.get() | {output})

            try:
                yield
            finally:
                _held.reset(token)
                holder.unlink(missing_ok=True)
                with suppress(OSError):  # Windows removes no open file
                    path.unlink()
    except Timeout:
        raise InputError(
            f"{_name_holder(holder)} writes to {output}; wait for it, or give --output another folder."
        ) from None
    finally:
        for parent in made:  # nothing was written into them
            with suppress(OSError):
                parent.rmdir()


def _name_holder(file: Path) -> str:
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        return f"Process {int(holder['pid'])} on {holder['host']} (since {holder['since']})"
    except (OSError, ValueError, TypeError, KeyError):  # it has only just taken the lock
        return "Another process"

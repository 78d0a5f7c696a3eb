"""Rows that kill the process which predicts them, by exhausting the memory or crashing a library.

A killed process cannot report its rows, so it records them before it predicts them. The next process reads the record:
it predicts the batch in which its predecessor died row by row, and skips a row at which two processes died.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from rekd_edge.errors import InputError
from rekd_edge.files import read_json, write_json

__all__ = ["CrashRecord", "fatal_rows"]

DEATHS = 2
"""How many processes die at a row before it is skipped: the first death may have another cause."""


class CrashRecord:
    """The record of one range of rows, removed when its process finishes the range."""

    reason = "The process died while it predicted this row; it may need more memory than there is."

    def __init__(self, path: Path) -> None:
        self._path = path
        self._deaths = _deaths(path)
        self.fatal = _fatal(self._deaths)
        """Rows that are passed over."""

    def __enter__(self) -> CrashRecord:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._path.unlink(missing_ok=True)

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Divide a batch into single rows if a process died in it, otherwise not at all."""
        if any(first < stop and start < last for first, last in self._deaths):
            yield from ((row, row + 1) for row in range(start, stop))
        else:
            yield start, stop

    def enter(self, start: int, stop: int) -> None:
        """Record that these rows are predicted next."""
        write_json(self._path, {"deaths": self._deaths, "at": [start, stop]}, durable=False)


def fatal_rows(path: Path) -> frozenset[int]:
    """The rows that the next process will skip."""
    return _fatal(_deaths(path))


def _deaths(path: Path) -> list[tuple[int, int]]:
    """Where processes died, including the last one: the first row, and the one after the last."""
    try:
        noted = read_json(path)
        return [(int(start), int(stop)) for start, stop in [*noted["deaths"], noted["at"]]]
    except (InputError, KeyError, TypeError, ValueError):
        return []


def _fatal(deaths: list[tuple[int, int]]) -> frozenset[int]:
    counts = Counter(start for start, stop in deaths if stop - start == 1)
    return frozenset(row for row, count in counts.items() if count >= DEATHS)

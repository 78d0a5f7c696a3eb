"""Rows that end the process which predicts them, as some do that exhaust the memory or break a library.

Such a process cannot say what it was at, so it notes that before. The next one finds the note: it takes the rows of a
batch in which its predecessor died one by one, and passes over a row at which two have died.
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
"""At a row before it is passed over: the first may have had another cause."""


class CrashRecord:
    """The note of one range of rows; it is removed when its process leaves the range alive."""

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
        """Divide a batch of rows: into single ones where a process died in it, else not at all."""
        if any(first < stop and start < last for first, last in self._deaths):
            yield from ((row, row + 1) for row in range(start, stop))
        else:
            yield start, stop

    def enter(self, start: int, stop: int) -> None:
        """Note that these rows are next."""
        write_json(self._path, {"deaths": self._deaths, "at": [start, stop]}, durable=False)


def fatal_rows(path: Path) -> frozenset[int]:
    """The rows that the next process would pass over."""
    return _fatal(_deaths(path))


def _deaths(path: Path) -> list[tuple[int, int]]:
    """Where processes have died, the last one too: first row, and the one after the last."""
    try:
        noted = read_json(path)
        return [(int(start), int(stop)) for start, stop in [*noted["deaths"], noted["at"]]]
    except (InputError, KeyError, TypeError, ValueError):
        return []


def _fatal(deaths: list[tuple[int, int]]) -> frozenset[int]:
    counts = Counter(start for start, stop in deaths if stop - start == 1)
    return frozenset(row for row, count in counts.items() if count >= DEATHS)

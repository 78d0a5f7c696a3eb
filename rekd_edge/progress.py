"""How long work shows itself: a Rich display on a terminal, plain lines otherwise; always on standard error.

Of the processes that a launcher (torchrun, accelerate) starts for one run, the first alone speaks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from rekd_edge.terminal import in_one_line, printable

__all__ = ["SPEAKS", "SafeConsole", "Step", "console", "say", "steps"]

SPEAKS = int(os.environ.get("WORLD_SIZE", "1")) < 2 or os.environ.get("RANK", "0") == "0"


class SafeConsole(Console):
    """A Rich console that prints no control characters but its own: names and labels may come from anywhere."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Segments without control characters in their text; Rich's own are segments of another kind."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


console = SafeConsole(stderr=True, highlight=False, quiet=not SPEAKS)


def say(message: str) -> None:
    """One plain line on standard error."""
    console.print(in_one_line(message), markup=False, soft_wrap=True)


class Step(Protocol):
    """Called with the steps done so far, how many there are, and a few words on how it goes."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


@contextmanager
def steps(title: str) -> Iterator[Step]:
    """Show the progress of one piece of work; on a plain stream, a line each tenth of the way."""
    if not console.is_terminal:
        last = -1

        def line(done: int, total: int, note: str = "") -> None:
            nonlocal last
            tenth = 10 * done // max(total, 1)
            if tenth > last:
                last = tenth
                say(f"{title}: {done}/{total} {note}".rstrip())

        yield line

        return

    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, note="")

        def bar(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield bar

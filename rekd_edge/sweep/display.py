"""Progress of a sweep: the runs in training, how many are finished or failed, and the time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rekd_edge.errors import InputError
from rekd_edge.files import read_json
from rekd_edge.progress import console, say
from rekd_edge.sweep.perform import ERROR, PROGRESS, RESULT

__all__ = ["Board"]

LINE_SECONDS = 60.0
"""How often progress is printed where there is no terminal."""
SHOWN = 12
_ENDING = "ending"
_MEASURABLE = 0.02
"""Share of the work after which the time left is estimated."""


class Board:
    """The state of a sweep: it is told when runs start and end, and reads the progress files of the others.

    Args:
        costs: the work of each run to be trained, in any unit.
        finished: how many were finished before.
        failed: how many failed before and are not retried.
    """

    def __init__(self, costs: dict[str, float], finished: int, failed: int) -> None:
        self.costs = costs
        self.done, self.failed = finished, failed
        self.total = finished + failed + len(costs)
        self.running: dict[str, Path | None] = {}
        self._worked = 0.0
        self._began = time.monotonic()

    def started(self, name: str, folder: Path | None) -> None:
        """A run starts, or starts again."""
        self.running[name] = folder

    def ended(self, name: str, error: str | None, note: str = "") -> None:
        """A run ended; print one line about it."""
        self.running.pop(name, None)
        self._worked += self.costs[name]
        self.done += error is None
        self.failed += error is not None
        how = f"failed: {error}" if error is not None else note
        say(f"{self.done + self.failed}/{self.total} {name}: {how}")

    def states(self) -> dict[str, dict[str, Any]]:
        """The content of each running run's progress file; empty if there is none yet."""
        return {name: _read(folder) for name, folder in list(self.running.items())}

    def seconds_left(self, states: dict[str, dict[str, Any]]) -> float | None:
        """An estimate from the work done since the start; None while too little is done."""
        total = sum(self.costs.values())
        going = sum(self.costs[name] * _share(state) for name, state in states.items())
        worked = self._worked + going
        if worked < _MEASURABLE * total:
            return None
        return (time.monotonic() - self._began) * (total - worked) / worked

    def summary(self, states: dict[str, dict[str, Any]]) -> str:
        """How many runs are done and failed, and the time left."""
        left = self.seconds_left(states)
        words = [f"{self.done} of {self.total} runs done"]
        words += [f"{self.failed} failed"] if self.failed else []
        words += [] if left is None else [f"about {_duration(left)} left"]
        return ", ".join(words)

    def line(self) -> str:
        """The state as one plain line."""
        states = self.states()
        going = "; ".join(f"{name} {_words(state)}" for name, state in list(states.items())[:SHOWN])
        return f"{self.summary(states)}: {going}" if going else self.summary(states)

    def render(self) -> Group:
        """The state as a Rich renderable."""
        states = self.states()
        table = Table.grid(padding=(0, 2))

        for name, state in list(states.items())[:SHOWN]:
            table.add_row(name, ProgressBar(total=1.0, completed=_share(state), width=24), _words(state))

        if len(states) > SHOWN:
            table.add_row(f"and {len(states) - SHOWN} more", "", "")

        return Group(table, Text(self.summary(states), style="bold"))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Live on a terminal; elsewhere a plain line a minute."""
        if console.is_terminal:
            with Live(console=console, get_renderable=self.render, refresh_per_second=2, transient=True):
                yield
            return

        over = threading.Event()

        def tell() -> None:
            while not over.wait(LINE_SECONDS):
                say(self.line())

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()

        try:
            yield
        finally:
            over.set()
            teller.join()


def _read(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    try:
        return read_json(folder / PROGRESS)
    except InputError:
        return {"stage": _ENDING} if (folder / RESULT).is_file() or (folder / ERROR).is_file() else {}


def _share(state: dict[str, Any]) -> float:
    return 1.0 if state.get("stage") in ("test", _ENDING) else state.get("step", 0) / max(state.get("steps", 1), 1)


def _words(state: dict[str, Any]) -> str:
    if not state:
        return "starting"
    if "epochs" not in state:
        return str(state["stage"])
    return f"{state['stage']} epoch {min(state['epoch'], state['epochs'])}/{state['epochs']}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

"""Sweeps without an engine's processes (one run after the other, where the call is made), and what they leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rekd_edge.engines import EngineSettings, Outcome, Task
from rekd_edge.errors import RekdEdgeError
from rekd_edge.sweep import run
from rekd_edge.sweep.grid import load_grid


def one_by_one(tasks: Sequence[Task], settings: EngineSettings, started: Callable[[Task], None]) -> Iterator[Outcome]:
    """What `run_tasks` does, in this process."""
    failed: set[str] = set()
    for task in tasks:
        try:
            needed = next((need for need in task.needs if need in failed), None)
            if needed is not None:
                raise RekdEdgeError(f"It needs {needed}, which failed.")
            started(task)
            outcome = Outcome(task, task.call(*task.arguments))
        except RekdEdgeError as error:
            failed.add(task.name)
            outcome = Outcome(task, error=str(error))
        yield outcome


def sweep_here(
    grid: str,
    folder: Path,
    settings: dict[str, str] | None = None,
    retry: bool = False,
    trained: list[str] | None = None,
) -> dict[str, Any]:
    """Sweep; `trained` is told of the runs that were started."""

    def noted(tasks: Sequence[Task], engine: EngineSettings, started: Callable[[Task], None]) -> Iterator[Outcome]:
        def also(task: Task) -> None:
            if trained is not None:
                trained.append(task.name)
            started(task)

        return one_by_one(tasks, engine, also)

    with patch.object(run, "run_tasks", noted):
        return run.run_sweep(load_grid(grid, settings), folder, EngineSettings(), retry)


def run_of(folder: Path, name: str) -> Path:
    """The folder of a run in that of its sweep."""
    (run_folder,) = (folder / "runs").glob(f"{name}-????????")
    return run_folder


def compared(document: dict[str, Any]) -> tuple[Any, Any, Any]:
    """What must be the same in two sweeps of a grid."""
    return document["table"], document["rows"], document["failed"]

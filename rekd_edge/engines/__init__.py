"""Where work that falls apart into tasks is run: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rekd_edge.errors import FailureError, InputError

__all__ = ["EngineSettings", "Outcome", "Task", "run_tasks"]


@dataclass(frozen=True)
class Task:
    """One call in a process of its own, which may be repeated: a task that was cut off starts again."""

    name: str
    """Unique among the tasks of one `run_tasks`."""
    call: Callable[..., Any]
    """A function of a module."""
    arguments: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()
    """Names of tasks that must have succeeded before."""
    cpus: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    task: Task
    value: Any = None
    """What the call returned."""
    error: str | None = None
    """One sentence where it raised, was lost too often, or needed a task that failed."""


@dataclass(frozen=True)
class EngineSettings:
    """Which engine, and how much of it."""

    name: str = "local"
    """`local` or `ray`."""
    workers: int | None = None
    """Tasks at a time; None for what the processors bear."""
    address: str | None = None
    """Of a Ray cluster to join; None starts Ray on this machine."""


def run_tasks(
    tasks: Sequence[Task], settings: EngineSettings, started: Callable[[Task], None] = lambda task: None
) -> Iterator[Outcome]:
    """Run tasks, each once what it needs has succeeded, and give their outcomes as they end.

    Args:
        tasks: in the order in which they should start.
        settings: the engine.
        started: told of each task when it starts, and again when it is restarted.
    """
    done: dict[str, Outcome] = {}
    for task in tasks:
        failed = next((name for name in task.needs if done[name].error is not None), None)
        if failed is not None:
            outcome = Outcome(task, error=f"It needs {failed}, which failed.")
        else:
            started(task)
            try:
                outcome = Outcome(task, task.call(*task.arguments))
            except (InputError, FailureError) as error:
                outcome = Outcome(task, error=str(error))
        done[task.name] = outcome
        yield outcome

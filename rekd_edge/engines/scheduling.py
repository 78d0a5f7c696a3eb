"""The schedule of every engine: tasks run in order, after what they need, and again where their process died."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rekd_edge.engines.tasks import Outcome, Report, Task
from rekd_edge.progress import say

__all__ = ["Engine", "TaskEnd", "check_needs", "schedule"]

MAX_DEATHS = 3
"""How many times a task's process may die before the task is given up."""


@dataclass(frozen=True)
class TaskEnd:
    """A task that ended: with a report, or without one because its process died."""

    task: Task
    report: Report | None = None
    cause: str = ""
    """How the process died."""


class Engine(Protocol):
    """Where tasks run; their order is the schedule's."""

    def has_room(self, running: Sequence[Task], task: Task) -> bool:
        """Whether a task fits beside those that run; processors count only where no number of workers was given."""

    def start(self, task: Task) -> None:
        """Start a task without waiting for it."""

    def wait(self) -> Sequence[TaskEnd]:
        """Wait until at least one of the running tasks has ended."""

    def close(self) -> None:
        """Kill whatever still runs."""


def check_needs(tasks: Sequence[Task]) -> None:
    """Check that names are unique and that every task can be reached.

    Raises:
        ValueError: they are not, or a task needs one that is not there, or itself, by whatever way.
    """
    left = {task.name: task for task in tasks}
    if len(left) < len(tasks):
        raise ValueError("Two tasks have the same name.")

    unknown = {need for task in tasks for need in task.needs} - left.keys()
    if unknown:
        raise ValueError(f"No task is called {min(unknown)!r}, which another needs.")

    while left:
        free = [name for name, task in left.items() if not any(need in left for need in task.needs)]
        if not free:
            raise ValueError(f"Tasks need one another in a circle: {', '.join(left)}.")
        for name in free:
            del left[name]


def schedule(
    tasks: Sequence[Task], engine: Engine, workers: int | None, started: Callable[[Task], None]
) -> Iterator[Outcome]:
    """Run tasks whose needs `check_needs` has passed, at most `workers` at a time, and give their outcomes as they end.

    A task starts before those that come after it in `tasks` wherever both are free to.
    """
    waiting = list(tasks)
    running: dict[str, Task] = {}
    succeeded: set[str] = set()
    failed: set[str] = set()
    deaths: Counter[str] = Counter()

    while waiting or running:
        for task in list(waiting):
            missing = next((need for need in task.needs if need in failed), None)
            if missing is not None:
                waiting.remove(task)
                failed.add(task.name)
                yield Outcome(task, error=f"It needs {missing}, which failed.")
            elif succeeded.issuperset(task.needs):
                if running and not _room(engine, list(running.values()), task, workers):
                    break

                waiting.remove(task)
                running[task.name] = task
                started(task)
                engine.start(task)

        for end in engine.wait() if running else ():
            name = end.task.name
            del running[name]

            if end.report is None:
                deaths[name] += 1
                if deaths[name] < MAX_DEATHS:
                    waiting.insert(0, end.task)
                    continue

            outcome = _outcome(end)
            (succeeded if outcome.error is None else failed).add(name)
            yield outcome


def _room(engine: Engine, running: Sequence[Task], task: Task, workers: int | None) -> bool:
    return (workers is None or len(running) < workers) and engine.has_room(running, task)


def _outcome(end: TaskEnd) -> Outcome:
    if end.report is None:
        return Outcome(
            end.task,
            error=f"Its process died {MAX_DEATHS} times ({end.cause}); where memory runs out, give it fewer workers.",
            lost=True,
        )

    if end.report.value is None:
        if end.report.details and os.environ.get("REKD_EDGE_TRACEBACK"):
            say(end.report.details)
        return Outcome(end.task, error=end.report.error, details=end.report.details)

    return Outcome(end.task, pickle.loads(end.report.value))

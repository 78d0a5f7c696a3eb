"""Tasks and their outcomes, and the call that runs a task in its process, whatever the engine."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rekd_edge.errors import RekdEdgeError
from rekd_edge.process import isolated_imports

__all__ = [
    "EngineSettings",
    "Outcome",
    "Report",
    "Task",
    "attempt",
    "pack",
    "processors",
    "thread_limits",
    "worker_environment",
]


@dataclass(frozen=True)
class Task:
    """One call in a process of its own. It must be safe to repeat: a task whose process died is started again."""

    name: str
    """Unique among the tasks of one `run_tasks`."""
    call: Callable[..., Any]
    """A function of a module that a worker can import, so not of the running script."""
    arguments: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()
    """Names of tasks that must have succeeded before."""
    cpus: int = 1
    """Processors, and threads of each of its libraries."""
    gpus: float | None = 0.0
    """Devices, or a share of one; None for one device if a Ray cluster has any."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    task: Task
    value: Any = None
    """What the call returned."""
    error: str | None = None
    """One sentence if it raised, its process died too often, or it needed a failed task."""
    details: str | None = None
    """The traceback of an unexpected error."""
    lost: bool = False
    """Whether the error is that its process died too often."""


@dataclass(frozen=True)
class EngineSettings:
    """The engine, and how much of it is used."""

    name: str = "local"
    """`local` or `ray`."""
    workers: int | None = None
    """Tasks at a time; None for as many as the processors allow."""
    address: str | None = None
    """The address of a Ray cluster to join; None starts Ray on this machine."""


@dataclass(frozen=True)
class Report:
    """What a task sends when it ends: the pickled value, or what was raised."""

    value: bytes | None = None
    error: str | None = None
    details: str | None = None


def pack(task: Task) -> bytes:
    """Pickle a task for its worker, which imports the call's module, so that failing imports are reported.

    Raises:
        ValueError: the call is defined in the running script.
    """
    if task.call.__module__ == "__main__":
        raise ValueError(f"{task.call.__name__} stands in the script that runs; workers need it in a module.")
    return pickle.dumps((task.call, task.arguments))


def attempt(packed: bytes) -> Report:
    """Run a packed task; an error is reported by its sentence if it is ours, else by type, message and traceback."""
    try:
        call, arguments = pickle.loads(packed)
        return Report(pickle.dumps(call(*arguments)))
    except RekdEdgeError as error:
        return Report(error=str(error))
    except (Exception, SystemExit) as error:
        words = " ".join(str(error).split())[:300]
        return Report(error=f"{type(error).__name__}: {words}".rstrip(": "), details=traceback.format_exc())


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_environment(threads: int) -> dict[str, str]:
    """The environment of a new process on this machine: threads of its libraries, and where it imports from."""
    return thread_limits(threads) | isolated_imports()


def thread_limits(threads: int) -> dict[str, str]:
    """The environment that limits the threads of each library of a new process."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return dict.fromkeys((*names, "VECLIB_MAXIMUM_THREADS"), str(threads))

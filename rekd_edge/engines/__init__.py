"""Where work that falls apart into tasks is run: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from importlib.util import find_spec

from rekd_edge.engines.scheduling import Engine, check_needs, schedule
from rekd_edge.engines.tasks import EngineSettings, Outcome, Task
from rekd_edge.errors import InputError

__all__ = ["ENGINES", "EngineSettings", "Outcome", "Task", "check_engine", "run_tasks"]

ENGINES = ("local", "ray")


def run_tasks(
    tasks: Sequence[Task], settings: EngineSettings, started: Callable[[Task], None] = lambda task: None
) -> Generator[Outcome, None, None]:
    """Run tasks, each once what it needs has succeeded, and give their outcomes as they end.

    A task whose process dies is started again, twice at most; one that raises is not. Closing the iterator (as
    `contextlib.closing` does, and Ctrl-C) ends what still runs.

    Args:
        tasks: in the order in which they should start. In a cluster they see the paths of a file system that its nodes
            share, and rekd-edge must be installed on every node.
        settings: the engine.
        started: told of each task when it starts, and again when it is restarted.

    Raises:
        InputError: there is no such engine, or it cannot be had.
        ValueError: names are not unique, or needs cannot be met.
    """
    check_needs(tasks)
    check_engine(settings)
    return _run(tasks, settings, started)


def check_engine(settings: EngineSettings) -> None:
    """Whether these settings can be an engine's, before anything is started.

    Raises:
        InputError: they cannot, or Ray is not installed.
    """
    if settings.workers is not None and settings.workers < 1:
        raise InputError(f"{settings.workers} workers cannot run anything; give --workers 1 or more.")
    if settings.name not in ENGINES:
        raise InputError(f"There is no engine {settings.name!r}; choose one of: {', '.join(ENGINES)}.")
    if settings.name == "local" and settings.address is not None:
        raise InputError("An address is that of a Ray cluster; give it with --engine ray.")
    if settings.name == "ray" and find_spec("ray") is None:
        raise InputError('The ray engine needs Ray; install it with: pip install "rekd-edge[ray]".')


def _run(
    tasks: Sequence[Task], settings: EngineSettings, started: Callable[[Task], None]
) -> Generator[Outcome, None, None]:
    if tasks:
        with closing(_open(settings)) as engine:
            yield from schedule(tasks, engine, settings.workers, started)


def _open(settings: EngineSettings) -> Engine:
    if settings.name == "ray":
        from rekd_edge.engines.ray import RayEngine

        return RayEngine(settings.workers, settings.address)

    from rekd_edge.engines.local import LocalEngine

    return LocalEngine(settings.workers)

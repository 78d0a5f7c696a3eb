"""Tasks in processes of this machine, one a task, so that none can break another."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from rekd_edge.engines.scheduling import Ended
from rekd_edge.engines.tasks import Report, Task, attempt, pack, processors, thread_limits

__all__ = ["LocalEngine"]

LOOK = 1.0  # seconds after which to look for a dead process whose children hold its pipe open
LEAVE = 10.0  # seconds that a process has to go once it has answered


@dataclass(frozen=True)
class _Running:
    task: Task
    process: SpawnProcess
    answer: Connection
    gpus: tuple[str, ...]


class LocalEngine:
    """Up to `workers` processes. Each is limited to its task's share of the processors before it imports anything."""

    def __init__(self, workers: int | None) -> None:
        self.workers = workers
        self.cpus = processors()
        self._context = multiprocessing.get_context("spawn")
        self._running: list[_Running] = []
        atexit.register(self.close)  # before multiprocessing, which would wait for them

    @cached_property
    def gpus(self) -> list[str]:
        """The devices that CUDA would show this process, without importing torch."""
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        if shown is not None:
            return [name.strip() for name in shown.split(",") if name.strip() not in ("", "-1")]
        if shutil.which("nvidia-smi") is None:
            return []
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
        return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]

    def bears(self, running: Sequence[Task], task: Task) -> bool:
        """Whether processors and devices suffice; a task that needs more than there are has the machine alone."""
        tasks = [*running, task]
        gpus = sum(task.gpus for task in tasks)
        return sum(task.cpus for task in tasks) <= self.cpus and (not gpus or gpus <= max(1, len(self.gpus)))

    def start(self, task: Task) -> None:
        """Start a task's process."""
        threads = max(1, min(task.cpus, self.cpus // (self.workers or 1)))
        gpus = self._pick(task.gpus)
        environment = thread_limits(threads) | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
        answer, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(pack(task), sender), name=task.name)
        with _environment(environment):
            process.start()
        sender.close()  # from here on the pipe ends with the process
        self._running.append(_Running(task, process, answer, gpus))

    def ended(self) -> list[Ended]:
        """Wait for an answer, or for the end of a process that has none."""
        ends: list[Ended] = []
        while not ends:
            ready = wait([one.answer for one in self._running], LOOK)
            for one in list(self._running):
                if one.answer in ready or one.process.exitcode is not None:
                    report = _receive(one.answer)
                    if report is not None:
                        one.process.join(LEAVE)
                    _end(one)
                    self._running.remove(one)
                    ends.append(Ended(one.task, report, _manner(one.process.exitcode)))
        return ends

    def close(self) -> None:
        """End every process and those it started, at once."""
        atexit.unregister(self.close)
        for one in self._running:
            _end(one)
        self._running.clear()

    def _pick(self, gpus: float) -> tuple[str, ...]:
        """The devices that bear least, as many as are asked for."""
        if not gpus or not self.gpus:
            return ()
        load: Counter[str] = Counter()
        for one in self._running:
            for device in one.gpus:
                load[device] += 1
        return tuple(sorted(self.gpus, key=load.__getitem__)[: max(1, round(gpus))])


def _work(packed: bytes, sender: Connection) -> None:
    """The body of a task's process: in a group of its own, which the end of the parent ends."""
    os.dup2(2, 1)  # standard output is the parent's answer alone
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sender.send_bytes(pickle.dumps(attempt(packed)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _receive(answer: Connection) -> Report | None:
    """The report, or None where the process died before it was sent whole."""
    try:
        return pickle.loads(answer.recv_bytes()) if answer.poll() else None
    except (EOFError, OSError):
        return None


def _end(one: _Running) -> None:
    """End a process and its group, whatever state they are in, and take leave of it."""
    if hasattr(os, "killpg") and one.process.pid is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(one.process.pid, signal.SIGKILL)
    one.process.kill()
    one.process.join()
    one.answer.close()


def _manner(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"by {signal.Signals(-exitcode).name}"
    return f"with exit status {exitcode}"


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Change this process's environment while a child inherits it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

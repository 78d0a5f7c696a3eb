"""Tasks in processes of this machine, one a task, so that none can break another."""

from __future__ import annotations

import atexit
import os
import pickle
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import BinaryIO

from rekd_edge.engines.scheduling import Ended
from rekd_edge.engines.tasks import Report, Task, attempt, pack, processors, worker_environment
from rekd_edge.process import python_command

__all__ = ["LocalEngine", "work"]

CODE = "from rekd_edge.engines.local import work; work()"
LOOK = 1.0  # seconds between looks for processes that are dead, and on Windows for Ctrl-C
_ROUNDING = 1e-9  # of shares of a device that add up to the whole
LEAVE = 10.0  # seconds that a process has to go once it has answered


@dataclass(frozen=True)
class _Running:
    task: Task
    process: subprocess.Popen[bytes]
    gpus: tuple[str, ...]


class LocalEngine:
    """Up to `workers` processes. Each is limited to its task's share of the processors before it imports anything, and
    imports nothing of the caller's script."""

    def __init__(self, workers: int | None) -> None:
        self.workers = workers
        self.cpus = processors()
        self._running: list[_Running] = []
        self._answers: SimpleQueue[tuple[_Running, bytes]] = SimpleQueue()
        atexit.register(self.close)

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
        """Whether devices suffice, and processors where no number of workers was given; a task that needs more than
        there are has the machine alone.
        """
        suffice = self.workers is not None or sum(task.cpus for task in [*running, task]) <= self.cpus
        return suffice and all(
            self._load(device) + _share(task) <= 1.0 + _ROUNDING for device in self._pick(task.gpus or 0.0)
        )

    def start(self, task: Task) -> None:
        """Start a task's process: the task goes to its standard input, its report comes from its standard output."""
        threads = max(1, min(task.cpus, self.cpus // (self.workers or 1)))
        gpus = self._pick(task.gpus or 0.0)
        environment = os.environ | worker_environment(threads)

        if self.gpus and gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)

        process = subprocess.Popen(
            python_command(CODE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the caller alone, which ends the group
        )
        running = _Running(task, process, gpus)
        self._running.append(running)
        threading.Thread(target=self._converse, args=(running, pickle.dumps(pack(task))), daemon=True).start()

    def ended(self) -> list[Ended]:
        """Wait for an answer, or for the end of a process that has none."""
        while True:
            try:
                running, answer = self._answers.get(timeout=LOOK)
                break
            except Empty:
                for one in self._running:
                    if one.process.poll() is not None:  # what it has started holds its standard output open
                        _end(one.process)

        report = _report(answer)
        if report is not None:
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(LEAVE)

        _end(running.process)
        self._running.remove(running)
        return [Ended(running.task, report, _manner(running.process.returncode))]

    def close(self) -> None:
        """End every process and those it started, at once."""
        atexit.unregister(self.close)
        for one in self._running:
            _end(one.process)
        self._running.clear()

    def _converse(self, running: _Running, packed: bytes) -> None:
        """Hand over the task and wait for the report; standard input stays open, for its end would end the process."""
        process, answer = running.process, b""
        assert process.stdin is not None
        assert process.stdout is not None

        with suppress(OSError, ValueError):  # it has died, or this engine was closed
            process.stdin.write(packed)
            process.stdin.flush()

        with suppress(OSError, ValueError):
            answer = process.stdout.read()

        process.stdout.close()
        self._answers.put((running, answer))

    def _pick(self, gpus: float) -> tuple[str, ...]:
        """The devices that bear least, as many as are asked for."""
        if not gpus:
            return ()
        devices = self.gpus or [""]  # a machine without any is taken for one with one
        return tuple(sorted(devices, key=self._load)[: max(1, round(gpus))])

    def _load(self, device: str) -> float:
        """What of a device is given away."""
        return sum(_share(one.task) for one in self._running if device in one.gpus)


def _share(task: Task) -> float:
    """Of each device that a task is given."""
    return min(1.0, task.gpus or 0.0)


def work() -> None:
    """The body of a task's process, which ends with its caller, and all that it has started with it."""
    caller, answer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)

    os.dup2(2, 1)  # what a task prints is no answer
    packed = pickle.load(caller)
    threading.Thread(target=_end_with, args=(caller,), daemon=True).start()

    with answer:
        pickle.dump(attempt(packed), answer)


def _end_with(caller: BinaryIO) -> None:
    caller.read()  # until it is gone
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _report(answer: bytes) -> Report | None:
    """The report, or None where the process died before it was sent whole."""
    try:
        return pickle.loads(answer)
    except (EOFError, pickle.UnpicklingError):
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group, whatever state they are in, and take leave of it."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    process.kill()
    process.wait()
    assert process.stdin is not None

    with suppress(OSError):
        process.stdin.close()


def _manner(status: int) -> str:
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"

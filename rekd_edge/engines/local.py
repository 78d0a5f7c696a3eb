"""Tasks in processes of this machine, one a task, so that none can break another.

Why not loky or concurrent.futures: their workers outlive tasks, and where one dies the pool is broken and takes every
other task with it (tried with loky 3.7: TerminatedWorkerError for the task beside it, and for those that come later).
Here a task whose process was killed starts again and no other notices; its threads and devices are set in the
environment before anything is imported; and its process ends with its caller, with all that it has started. Ray does
the same on a cluster, but is too large to install for one machine.
"""

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

from rekd_edge.engines.scheduling import TaskEnd
from rekd_edge.engines.tasks import Report, Task, attempt, pack, processors, worker_environment
from rekd_edge.process import python_command

__all__ = ["LocalEngine", "work"]

CODE = "from rekd_edge.engines.local import work; work()"
POLL_SECONDS = 1.0
"""How often processes are checked for being alive, and on Windows for Ctrl-C."""
EXIT_SECONDS = 10.0
"""How long a process may take to exit once it has answered."""
_ROUNDING = 1e-9  # of shares of a device that add up to the whole


@dataclass(frozen=True)
class _Running:
    task: Task
    process: subprocess.Popen[bytes]
    gpus: tuple[str, ...]


class LocalEngine:
    """Up to `workers` processes.

    Each is limited to its task's share of the processors before it imports anything, and imports nothing of the
    caller's script or working directory.
    """

    def __init__(self, workers: int | None) -> None:
        self.workers = workers
        self.cpus = processors()
        self._running: list[_Running] = []
        self._answers: SimpleQueue[tuple[_Running, bytes]] = SimpleQueue()
        atexit.register(self.close)

    @cached_property
    def gpus(self) -> list[str]:
        """The CUDA devices that this process sees, found without importing torch."""
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        if shown is not None:
            return [name.strip() for name in shown.split(",") if name.strip() not in ("", "-1")]
        if shutil.which("nvidia-smi") is None:
            return []

        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
        return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]

    def has_room(self, running: Sequence[Task], task: Task) -> bool:
        """Whether there are devices enough, and processors enough where no number of workers was given.

        A task that needs more than the machine has runs alone.
        """
        suffice = self.workers is not None or sum(task.cpus for task in [*running, task]) <= self.cpus
        return suffice and all(
            self._allotted(device) + _share(task) <= 1.0 + _ROUNDING for device in self._least_loaded(task.gpus or 0.0)
        )

    def start(self, task: Task) -> None:
        """Start a task's process, which reads the task from standard input and writes its report to standard output."""
        threads = max(1, min(task.cpus, self.cpus // (self.workers or 1)))
        gpus = self._least_loaded(task.gpus or 0.0)
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
        threading.Thread(target=self._exchange, args=(running, pickle.dumps(pack(task))), daemon=True).start()

    def wait(self) -> list[TaskEnd]:
        """Wait for a report, or for a process that ended without one."""
        while True:
            try:
                running, answer = self._answers.get(timeout=POLL_SECONDS)
                break
            except Empty:
                for one in self._running:
                    if one.process.poll() is not None:  # its children may hold its standard output open
                        _end(one.process)

        report = _report(answer)
        if report is not None:
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(EXIT_SECONDS)

        _end(running.process)
        self._running.remove(running)
        return [TaskEnd(running.task, report, _cause_of_death(running.process.returncode))]

    def close(self) -> None:
        """Kill every process and those it started."""
        atexit.unregister(self.close)
        for one in self._running:
            _end(one.process)
        self._running.clear()

    def _exchange(self, running: _Running, packed: bytes) -> None:
        """Send the task and wait for the report; standard input stays open, for closing it would end the process."""
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

    def _least_loaded(self, gpus: float) -> tuple[str, ...]:
        """As many devices as are asked for, those with the least work."""
        if not gpus:
            return ()
        devices = self.gpus or [""]  # without any, tasks share as on a machine with one
        return tuple(sorted(devices, key=self._allotted)[: max(1, round(gpus))])

    def _allotted(self, device: str) -> float:
        """Which share of a device is taken."""
        return sum(_share(one.task) for one in self._running if device in one.gpus)


def _share(task: Task) -> float:
    """The share that a task takes of each of its devices."""
    return min(1.0, task.gpus or 0.0)


def work() -> None:
    """The body of a task's process; when the caller is gone, it ends with everything it has started."""
    caller, answer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)

    os.dup2(2, 1)  # what a task prints is not part of its report
    packed = pickle.load(caller)
    threading.Thread(target=_end_with, args=(caller,), daemon=True).start()

    with answer:
        pickle.dump(attempt(packed), answer)


def _end_with(caller: BinaryIO) -> None:
    caller.read()  # returns when the caller is gone
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _report(answer: bytes) -> Report | None:
    """The report, or None where the process died before it was complete."""
    try:
        return pickle.loads(answer)
    except (EOFError, pickle.UnpicklingError):
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its group, whatever state they are in, and reap it."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    process.kill()
    process.wait()
    assert process.stdin is not None

    with suppress(OSError):
        process.stdin.close()


def _cause_of_death(status: int) -> str:
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"

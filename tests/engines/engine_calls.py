"""What the tests have the engines run: functions of a module that the workers can import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rekd_edge.errors import FailureError, InputError


def add(*numbers: int) -> int:
    return sum(numbers)


def interval(seconds: float) -> tuple[float, float, int]:
    """When it ran, and in which process."""
    start = time.time()
    time.sleep(seconds)
    return start, time.time(), os.getpid()


def meet(folder: Path, count: int) -> tuple[float, float, int]:
    """Come to a folder and wait until so many have; when that was, and in which process."""
    start = time.time()
    os.close(tempfile.mkstemp(dir=folder)[0])
    while len(list(folder.iterdir())) < count and time.time() < start + 60:
        time.sleep(0.02)
    return start, time.time(), os.getpid()


def environment() -> dict[str, Any]:
    """The limits of threads, and what libraries make of them."""
    early = "torch" not in sys.modules
    import torch

    return {**os.environ, "torch_threads": torch.get_num_threads(), "early": early}


def wrong_input() -> None:
    raise InputError("The input is wrong; mend it.")


def failed() -> None:
    raise FailureError("The work failed.")


def broken() -> None:
    raise KeyError("absent")


def leave() -> None:
    sys.exit("enough")


def unpicklable() -> object:
    return lambda: None


def print_noise() -> str:
    print("noise")
    sys.stdout.flush()
    return "done"


def die_first(folder: Path, deaths: int) -> int:
    """Kill this process the first times that it is run; its files count them."""
    before = len(list(folder.iterdir()))
    (folder / str(before)).touch()
    if before < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return before


def exit_silently() -> None:
    os._exit(7)


def hang(folder: Path) -> None:
    """Write the ids of this process and of one that it starts, and stay."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "writing").write_text(f"{os.getpid()} {child.pid}")
    (folder / "writing").rename(folder / "pids")
    time.sleep(600)


def fork_and_die(folder: Path) -> None:
    """Die while a fork, which has all files that this process has, lives on."""
    if os.fork() == 0:
        time.sleep(600)
    (folder / str(len(list(folder.iterdir())))).touch()
    os.kill(os.getpid(), signal.SIGKILL)

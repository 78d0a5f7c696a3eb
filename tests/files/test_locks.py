"""One call at a time writes to an output, and a lock does not outlive its holder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rekd_edge.errors import InputError
from rekd_edge.files import locked

HOLD = """
import sys, time
from pathlib import Path
from rekd_edge.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(output: Path) -> subprocess.Popen[bytes]:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


def test_second_caller_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    output = tmp_path / "run"
    holder = start_holder(output)
    try:
        with pytest.raises(InputError) as caught, locked(output):
            pytest.fail("two hold the lock")
    finally:
        holder.communicate()
    words = str(caught.value)
    assert f"Process {holder.pid} on {socket.gethostname()} (since 20" in words
    assert str(output) in words
    assert list(tmp_path.iterdir()) == []


def test_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    output = tmp_path / "run"
    holder = start_holder(output)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert list(tmp_path.iterdir()), "the killed holder removed its files, so this tests nothing"
    with locked(output):
        pass
    assert list(tmp_path.iterdir()) == []


def test_waiting_caller_gets_the_lock_after_the_holder(tmp_path: Path) -> None:
    output = tmp_path / "run"
    holder = start_holder(output)
    order: list[str] = []

    def wait() -> None:
        with locked(output, wait=True):
            order.append("waiter")

    waiter = threading.Thread(target=wait)
    waiter.start()
    waiter.join(0.3)
    order.append("holder")
    holder.communicate()
    waiter.join(30)
    assert order == ["holder", "waiter"]


def test_steps_of_one_call_share_its_lock(tmp_path: Path) -> None:
    output = tmp_path / "run"
    link = tmp_path / "link"
    link.symlink_to(output)
    with locked(output):
        with locked(link):
            pass
        refused = []

        def other_call() -> None:
            with pytest.raises(InputError), locked(output):
                pass
            refused.append(True)

        thread = threading.Thread(target=other_call)
        thread.start()
        thread.join()
        assert refused == [True], "a step released the lock of the whole call"


def test_folders_made_for_a_lock_go_with_it(tmp_path: Path) -> None:
    with locked(tmp_path / "deep" / "run"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "deep" / "run"):
        (tmp_path / "deep" / "run").mkdir()
    assert (tmp_path / "deep" / "run").is_dir()


@pytest.mark.parametrize("end", ["lock", "lock.json"])
def test_planted_link_is_not_written_through(tmp_path: Path, end: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / f".run.{end}").symlink_to(mine)
    try:
        with locked(tmp_path / "run"):
            pass
    except (InputError, OSError):
        pass
    assert mine.read_text() == "mine"

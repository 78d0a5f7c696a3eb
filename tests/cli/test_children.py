"""Commands as processes of their own: signals, pipes, encodings, and a full standard output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from rekd_edge import cli


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `rekd-edge ARGUMENTS` as a process of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "from rekd_edge.cli import main; main()", *map(str, arguments)]
        pipe = subprocess.PIPE
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # shells let what runs in the background ignore it
        together = {**os.environ, **environment}
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=together, preexec_fn=heed)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def read_lines(process: subprocess.Popen[bytes], count: int) -> list[bytes]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def test_of_many_processes_each_machines_first_speaks(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    for place, words in (("0", b"rekd-edge: process 3: "), ("1", b"")):
        launched = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": place}
        process = start("train", "--config", "nowhere", "--output", "run", **launched)
        _, error = process.communicate()
        assert process.returncode == 2
        assert error.startswith(words)
        assert bool(error) == bool(words)


def test_ctrl_c_ends_with_130(start: Callable[..., subprocess.Popen[bytes]], int8_bundle: Path) -> None:
    process = start("predict", int8_bundle, "-", "--json")
    assert process.stdin is not None
    process.stdin.write(b"a superb scene\n" * cli.predict.PREDICT_CHUNK)
    process.stdin.flush()
    assert all(json.loads(line)["label"] for line in read_lines(process, cli.predict.PREDICT_CHUNK))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130  # before its input ends, which would end it too
    assert process.communicate() == (b"", b"rekd-edge: Interrupted.\n")


def test_a_reader_that_leaves_is_no_failure(start: Callable[..., subprocess.Popen[bytes]], int8_bundle: Path) -> None:
    process = start("predict", int8_bundle, "-", "--json")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"a superb scene\n" * cli.predict.PREDICT_CHUNK)
    process.stdin.flush()
    read_lines(process, 1)
    process.stdout.close()
    process.stdin.write(b"a superb scene\n" * cli.predict.PREDICT_CHUNK)
    process.stdin.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=20) == 0


def test_any_terminal_encoding_will_do(start: Callable[..., subprocess.Popen[bytes]], int8_bundle: Path) -> None:
    for flags in ([], ["--json"]):
        process = start("predict", int8_bundle, "סרט טוב 👩 good", *flags, PYTHONIOENCODING="ascii:strict")
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, b"")
        out.decode("ascii")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["inspect"]])  # less and more than a buffer holds
def test_a_full_standard_output_is_a_failure(int8_bundle: Path, arguments: list[str]) -> None:
    given = [*arguments, str(int8_bundle)] if "inspect" in arguments else arguments
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-c", "from rekd_edge.cli import main; main()", *given]
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=buffered, timeout=20, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"no space left" in done.stderr

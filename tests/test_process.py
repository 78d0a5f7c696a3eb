"""What surrounds a command: closed streams, signals, odd terminals, and a full disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

COMMAND = """
import sys
from rekd_edge.process import goes_on, run_command
def command():
{body}
run_command(command, lambda error: None)
"""
posix = pytest.mark.skipif(os.name == "nt", reason="a matter of POSIX")


def start(body: str, *redirections: str, **environment: str) -> subprocess.Popen[str]:
    """Run a function as a command, in a shell that can close its streams."""
    code = COMMAND.format(body=textwrap.indent(textwrap.dedent(body).strip(), "    "))
    shell = ["sh", "-c", f'exec "$0" -c "$1" {" ".join(redirections)}', sys.executable, code]
    return subprocess.Popen(
        shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def run(body: str, *redirections: str, **environment: str) -> tuple[int, str, str]:
    process = start(body, *redirections, **environment)
    out, err = process.communicate("", timeout=120)
    return process.returncode, out, err


# Streams


@posix
def test_closed_standard_error_changes_nothing(tmp_path: Path) -> None:
    body = """
    from rekd_edge.progress import say
    say("words")
    print("words", file=sys.stderr)
    print("answer")
    """
    assert run(body, "2>&-") == (0, "answer\n", "")


@posix
def test_file_does_not_take_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    body = """
    import os
    with open(os.environ["FILE"], "w") as file:
        os.write(1, b"printed by a library")
        os.write(2, b"printed by a library")
        file.write("mine")
    """
    assert run(body, "0<&-", "1>&-", "2>&-", FILE=str(tmp_path / "file"))[0] == 0
    assert (tmp_path / "file").read_text() == "mine"


@posix
def test_closed_standard_input_is_an_empty_one() -> None:
    assert run("print(list(sys.stdin.buffer))", "<&-") == (0, "[]\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_disk_behind_standard_output_is_a_failure() -> None:
    status, _, err = run("print('answer')", ">/dev/full")
    assert status == 1
    assert err == "rekd-edge: There is no space left on the device; free some and run the command again.\n"


@pytest.mark.parametrize("columns", ["0", "-1", "none", "9" * 30, "99999", ""])
def test_impossible_width_hides_nothing(columns: str) -> None:
    body = """
    from rich.console import Console
    Console().print("an answer of several words")
    """
    assert run(body, COLUMNS=columns) == (0, "an answer of several words\n", "")


def test_given_width_is_kept() -> None:
    assert run("import os; print(os.environ['COLUMNS'])", COLUMNS="40") == (0, "40\n", "")


def test_c_locale_prints_any_text() -> None:
    status, out, _ = run(
        r"print('fa\u00e7ade \u05e1\u05e8\u05d8')", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )
    assert status == 0
    assert out.startswith("fa")


# Signals


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signal_leaves_the_work_tidily(number: signal.Signals, status: int, tmp_path: Path) -> None:
    body = """
    import os, signal, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what runs in the background ignore it
    from pathlib import Path
    from rekd_edge.files import staged_folder
    with goes_on("the same command"), staged_folder(Path(os.environ["OUTPUT"])) as staging:
        (staging / "half").write_text("half")
        print("begun", flush=True)
        time.sleep(60)
    """
    process = start(body, OUTPUT=str(tmp_path / "bundle"))
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, "rekd-edge: Interrupted; the same command goes on.\n")
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    ("around", "ending"), [("goes_on('the same call')", "; the same call goes on."), ("open(0)", ".")]
)
def test_a_signal_that_a_library_makes_an_error_of_its_own_is_still_one(
    number: signal.Signals, status: int, around: str, ending: str
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("started in the background, where shells let Ctrl-C be ignored")
    body = f"""
    import time
    with {around}:
        try:
            print("begun", flush=True)
            time.sleep(60)
        except BaseException as error:  # as torch's exporter does
            raise RuntimeError("create an issue") from error
    """
    process = start(body)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, f"rekd-edge: Interrupted{ending}\n")


@posix
def test_second_signal_does_not_cut_off_the_clean_up() -> None:
    body = """
    import time
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("ending", flush=True)
        time.sleep(0.5)
        print("clean", flush=True)
    """
    process = start(body)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "ending\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, "clean\n", "rekd-edge: Interrupted.\n")


@posix
def test_launched_processes_end_at_once_when_their_launcher_says_so() -> None:
    process = start("import time; print('begun', flush=True); time.sleep(60)", WORLD_SIZE="2", RANK="1")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM


@posix
def test_children_end_with_a_terminated_caller(tmp_path: Path) -> None:
    body = """
    import time
    from rekd_edge.engines import EngineSettings, Task, run_tasks
    tasks = [Task("sleep", time.sleep, (300.0,))]
    from rekd_edge.engines.local import LocalEngine
    start = LocalEngine.start
    def told(engine, task):
        start(engine, task)
        print(engine._running[-1].process.pid, flush=True)
    LocalEngine.start = told
    list(run_tasks(tasks, EngineSettings()))
    """
    process = start(body)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    end = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


# Errors


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("raise EOFError('Ran out of input')", 1, "EOFError: Ran out of input (set REKD_EDGE_TRACEBACK=1"),
        ("raise MemoryError", 1, "There is not enough memory"),
        ("raise KeyboardInterrupt", 130, "Interrupted."),
        (f"raise OSError({errno.ENOSPC}, 'No space left on device', 'x')", 1, "no space left on the device; free"),
        (f"raise OSError({errno.EACCES}, 'Permission denied', '/x')", 1, "Permission denied: /x; check the path"),
        ("raise ValueError('a\\x1b[31mred\\x07 word')", 1, "ValueError: a[31mred word"),
    ],
)
def test_error_is_one_sentence_and_a_status(body: str, status: int, words: str) -> None:
    ended, out, err = run(body)
    assert (ended, out) == (status, "")
    assert err.startswith("rekd-edge: ")
    assert words in err
    assert err.count("\n") == 1


def test_full_disk_in_work_that_can_go_on_says_how() -> None:
    body = f"""
    with goes_on("the same command with --resume"):
        raise OSError({errno.ENOSPC}, "No space left on device")
    """
    words = "rekd-edge: There is no space left on the device; free some; the same command with --resume goes on.\n"
    assert run(body) == (1, "", words)

"""What surrounds a command: its streams, its signals, and how an error becomes one sentence and an exit status."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from rekd_edge.errors import FailureError, InterruptedWorkError, RekdEdgeError
from rekd_edge.terminal import in_one_line

__all__ = ["goes_on", "import_path", "is_full_disk", "isolated_imports", "python_command", "run_command"]

NO_SPACE = "There is no space left on the device; free some"
NO_MEMORY = "There is not enough memory; close other programs, or give less work at a time."
LARGEST_TERMINAL = 10_000  # columns or lines


_received: list[int] = []
"""Signals that asked this process to end: libraries such as torch's exporter turn what a signal raises within them into
errors of their own."""


class Terminated(KeyboardInterrupt):
    """A signal that asks this process to end: the work is left as after Ctrl-C, with the signal's own exit status."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_status = 128 + number


def run_command(command: Callable[[], Any], describe_usage_error: Callable[[Exception], str | None]) -> NoReturn:
    """Run a command line and leave the process: every failure is one sentence on standard error.

    Args:
        command: gives the exit status, or what counts as 0.
        describe_usage_error: the sentence for wrong usage, None for any other exception.
    """
    _open_closed_streams()
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    _drop_unusable_sizes()
    _quieten_libraries()

    try:
        with _handled_signals(), _isolated_children():
            status = command()
            sys.stdout.flush()
    except InterruptedWorkError as error:
        _fail(str(error), error.exit_status)
    except RekdEdgeError as error:
        _fail_if_interrupted()
        _fail(str(error), error.exit_status)
    except KeyboardInterrupt as error:
        _fail("Interrupted.", getattr(error, "exit_status", 130))
    except (BrokenPipeError, SystemExit) as error:  # typer turns the first into the second
        if not isinstance(error.__context__ or error, BrokenPipeError):
            raise
        _discard_output()  # the reader has gone
        sys.exit(0)
    except ModuleNotFoundError as error:
        _fail(f'{error.name} is not installed; install the extra that has it: pip install "rekd-edge[all]".', 2)
    except MemoryError:
        _fail(NO_MEMORY, 1)
    except Exception as error:
        _fail_if_interrupted()
        usage = describe_usage_error(error)
        if usage is not None:
            _fail(usage, 2)
        if is_full_disk(error):
            _fail(f"{NO_SPACE} and run the command again.", 1)
        if isinstance(error, OSError) and error.strerror:
            _fail(f"{error.strerror}: {error.filename or 'a file'}; check the path and its permissions.", 1)
        if os.environ.get("REKD_EDGE_TRACEBACK"):
            raise

        words = " ".join(str(error).split())[:300]
        _fail(
            f"{type(error).__name__}: {words} (set REKD_EDGE_TRACEBACK=1 to see where, and report it).",
            1,
            unforeseen=True,
        )

    sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def goes_on(by: str) -> Iterator[None]:
    """Work that can be continued: what cuts it off says how.

    Raises:
        InterruptedWorkError: Ctrl-C, or a signal that asks the process to end.
        FailureError: the disk is full.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedWorkError(f"Interrupted; {by} goes on.", getattr(error, "exit_status", 130)) from None
    except Exception as error:
        if _received:
            raise InterruptedWorkError(f"Interrupted; {by} goes on.", 128 + _received[-1]) from error
        if is_full_disk(error):
            raise FailureError(f"{NO_SPACE}; {by} goes on.") from error
        raise


def is_full_disk(error: BaseException) -> bool:
    """Whether an error means that there is no space left, as the system, safetensors and torch say it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left" in str(error) or "unexpected pos" in str(error)


def python_command(code: str) -> list[str]:
    """The command that runs a line of Python, importing nothing from the working directory."""
    return [sys.executable, "-P", "-c", code]


def isolated_imports() -> dict[str, str]:
    """The variables with which a Python process imports what this one imports, and nothing besides."""
    return {"PYTHONPATH": os.pathsep.join(import_path()), "PYTHONSAFEPATH": "1"}


def import_path() -> list[str]:
    """This process's import path without the working directory.

    Python adds that to what is started as `python -c` or `python -m`, so that files lying there would be imported. It
    stays where PYTHONPATH names it, and where this package itself lies in it.
    """
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    here = os.path.realpath(os.curdir)
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    return [
        entry for entry in sys.path if entry and (os.path.realpath(entry) != here or entry in named or here == package)
    ]


def _open_closed_streams() -> None:
    """Let standard streams that the caller has closed read nothing and lead nowhere.

    Otherwise the next file to be opened would take their place, and what libraries print would go into it.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)  # takes the lowest number that is free

        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def _drop_unusable_sizes() -> None:
    """Leave out sizes of a terminal in which nothing could be printed."""
    for name in ("COLUMNS", "LINES"):
        value = os.environ.get(name, "1")
        if not (value.isascii() and value.isdigit() and len(value) < 9 and 0 < int(value) <= LARGEST_TERMINAL):
            del os.environ[name]


def _quieten_libraries() -> None:
    """Keep standard error to our own sentences: no log of retries, and progress bars on a terminal alone.

    ONNX Runtime's telemetry is off, which would write a file into the folder for temporary files.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def _isolated_children() -> Iterator[None]:
    """Keep the working directory off the import path of every Python process that libraries start, too."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"

    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def _handled_signals() -> Iterator[None]:
    """Let SIGTERM and a lost terminal end the work as Ctrl-C does.

    The processes of a launcher (torchrun) keep the default, which ends them even where they wait for one another.
    """
    _received.clear()
    handled: dict[int, Any] = {}
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 and threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
        handled = {number: signal.SIG_DFL for number in numbers if number}
        handled[signal.SIGINT] = signal.default_int_handler
        handled = {number: usual for number, usual in handled.items() if signal.getsignal(number) is usual}

    for number in handled:
        signal.signal(number, _terminate)

    try:
        yield
    finally:
        for number, usual in handled.items():
            signal.signal(number, usual)


def _terminate(number: int, frame: Any) -> NoReturn:
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt

    signal.signal(number, signal.SIG_IGN)  # what follows is clean-up, which a second one must not cut off
    raise Terminated(number)


def _discard_output() -> None:
    """Let what is left for standard output go nowhere, or Python would fail on it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail_if_interrupted() -> None:
    if _received:
        _fail("Interrupted.", 128 + _received[-1])


def _fail(sentence: str, status: int, unforeseen: bool = False) -> NoReturn:
    """Say it and leave. Of the processes of one run each machine's first speaks: the others meet the same bad input;
    only what nobody foresaw may be theirs alone.
    """
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()

    from rekd_edge.progress import SPEAKS

    if SPEAKS or unforeseen or os.environ.get("LOCAL_RANK") == "0":
        who = "" if SPEAKS else f"process {os.environ['RANK']}: "
        with suppress(OSError):
            print(f"rekd-edge: {who}{in_one_line(sentence)}", file=sys.stderr, flush=True)

    sys.exit(status)

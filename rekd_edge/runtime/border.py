"""The border of the runtime: counts are checked, and what a library or the system raises becomes one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rekd_edge.errors import FailureError, InputError, RekdEdgeError

__all__ = ["MAX_THREADS", "at_border", "check_threads", "in_short"]

LONGEST = 300
MAX_THREADS = 1024


@contextmanager
def at_border(doing: str) -> Iterator[None]:
    """Let our own errors pass, and turn every other exception into a `FailureError`.

    Args:
        doing: what could not be done, as in "the bundle could not be opened".
    """
    try:
        yield
    except RekdEdgeError:
        raise
    except MemoryError as error:
        raise FailureError(f"{doing}: there is not enough memory; free some, or give less at a time.") from error
    except OSError as error:
        reason = f"{error.strerror or error}: {error.filename}" if error.filename else error.strerror or str(error)
        raise FailureError(f"{doing} ({reason}); check the path and its permissions.") from error
    except Exception as error:
        raise FailureError(f"{doing} ({in_short(error)}).") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # tokenizers' Rust code; no subclass of Exception
            raise
        raise FailureError(f"{doing} ({in_short(error)}).") from error


def in_short(error: BaseException) -> str:
    """The first line of what a library says, or what it raised where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:LONGEST].rstrip(".") if lines else type(error).__name__


def check_threads(threads: int | None) -> None:
    """Check a number of threads, None for all physical cores.

    Raises:
        InputError: it is no whole number from 1 to `MAX_THREADS`.
    """
    if threads is None:
        return
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MAX_THREADS:
        raise InputError(f"threads is {threads}; give a whole number from 1 to {MAX_THREADS}.")

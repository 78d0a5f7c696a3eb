"""`huggingface_hub`, where it is installed, and its failures in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from rekd_edge.errors import FailureError, InputError, RekdEdgeError

__all__ = ["client", "hub_failures"]


def client(name: str) -> ModuleType:
    """The package.

    Args:
        name: what somebody wants from the Hub, for the sentence.

    Raises:
        InputError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
    except ImportError as error:
        raise InputError(
            f"There is no folder {name}, and without huggingface_hub it cannot be looked up on the Hugging Face Hub; "
            'correct the path, or: pip install "rekd-edge[hub]"'
        ) from error

    return huggingface_hub


@contextmanager
def hub_failures(name: str, revision: str | None = None) -> Iterator[None]:
    """Turn what `huggingface_hub` raises into one sentence.

    Raises:
        InputError: there is no such repository or revision, it is not open to this user, or cannot be reached.
        FailureError: there is no space left.
    """
    from huggingface_hub import errors

    at = f" {revision}" if revision else ""
    try:
        yield
    except RekdEdgeError:
        raise
    except errors.GatedRepoError as error:
        raise InputError(
            f"{name} asks for its terms to be accepted on its page on the Hub; log in: hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"There is no folder {name}, and no such repository on the Hugging Face Hub that this user may read; "
            "correct the name, or log in: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name} has no revision{at} on the Hugging Face Hub; correct what follows the @.") from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(
            f"There is no folder {name}, its revision{at or ' main'} is not in the cache, and the Hugging Face Hub "
            "cannot be reached; correct the path, or try again with a connection."
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise InputError(f"The Hub does not let this user write or read {name}; log in: hf auth login") from error
        raise InputError(f"The Hugging Face Hub refused {name} ({_first_line(error)}); try again later.") from error
    except OSError as error:
        if error.errno is not None and os.strerror(error.errno) == "No space left on device":
            raise FailureError(f"There is no space left for {name}; free some.") from error
        raise InputError(
            f"{name} could not be exchanged with the Hugging Face Hub ({_first_line(error)}); check the connection."
        ) from error
    except Exception as error:  # the HTTP libraries of its versions have errors of their own
        raise InputError(
            f"{name} could not be exchanged with the Hugging Face Hub ({_first_line(error)}); check the connection."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

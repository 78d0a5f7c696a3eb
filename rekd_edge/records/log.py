"""Predict, and append every decision to a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from rekd_edge.errors import FailureError, InputError
from rekd_edge.records.record import FIRST, LONGEST_RECORD, SCHEMA, as_line, hash_of_input, parse, processor_kind, seal
from rekd_edge.runtime.seal import LAYOUT, sha256_of
from rekd_edge.versions import versions

if TYPE_CHECKING:
    from rekd_edge.runtime import Rationalizer
    from rekd_edge.runtime.rationalizer import Prediction

__all__ = ["DecisionLog", "record_of"]

BEGINNING = f'{{"schema": {SCHEMA}, "input_sha256": "'.encode()
"""Of every record: an unfinished line without it is not ours, and is not removed."""


class DecisionLog:
    """A file to which the decisions of one bundle are appended, one JSON document a line.

    >>> with DecisionLog("decisions.jsonl", rationalizer, "bundle") as log:
    ...     log("An absolute delight.").label
    'positive'

    Args:
        path: of the file; an earlier log goes on.
        rationalizer: an open bundle.
        bundle: its folder.
        keep_inputs: write texts into the records too, not only their hashes.

    Raises:
        InputError: the file is a link, holds something else, or another process writes to it.
    """

    def __init__(
        self, path: str | os.PathLike[str], rationalizer: Rationalizer, bundle: Path, keep_inputs: bool = False
    ) -> None:
        self.path, self.rationalizer, self.keep_inputs = Path(path), rationalizer, keep_inputs
        self.manifest_sha256 = sha256_of(Path(bundle) / LAYOUT.manifest)
        self.runtime = {**versions("onnxruntime"), "processor": processor_kind()}
        self._file = _open(self.path)

        try:
            self._before = _last(self._file, self.path)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait until every record is on the disk, and let go of the file.

        Raises:
            FailureError: the system cannot write the last ones.
        """
        if self._file.closed:
            return

        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise FailureError(f"{self.path} could not be written ({error.strerror}); make room for it.") from error
        finally:
            with suppress(OSError):
                self._file.close()

    def __call__(self, source: Any) -> Prediction:
        """Predict one text or image, and append the decision.

        Raises:
            InputError, FailureError: as for the bundle; the record cannot be written.
        """
        return next(self.predict([source]))

    def predict(self, sources: Iterable[Any]) -> Iterator[Prediction]:
        """Predict inputs one by one, so that a replay meets the same numbers, and append each decision."""
        for source in sources:
            ((prediction, logits, margins),) = self.rationalizer.answers([source])
            record = record_of(source, prediction, logits, margins, self.rationalizer.near_tie_band)
            record |= {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "manifest_sha256": self.manifest_sha256,
                "runtime": self.runtime,
                "previous": self._before,
            }
            if self.keep_inputs and isinstance(source, str) and self.rationalizer.manifest.text:
                record["input"] = source

            self._append(record)
            yield prediction

    def _append(self, record: dict[str, Any]) -> None:
        record["sha256"] = seal(record)
        line = as_line(record)
        if len(line) > LONGEST_RECORD:
            raise InputError(f"The record has more than {LONGEST_RECORD} bytes; shorten the input.")

        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise FailureError(f"{self.path} could not be written ({error.strerror}); make room for it.") from error

        self._before = record["sha256"]


def record_of(source: Any, prediction: Prediction, logits: Any, margins: Any, band: float) -> dict[str, Any]:
    """What a record says of a decision itself; when, where and after what is added by the log.

    Args:
        source: the input.
        prediction: what was said of it.
        logits: float32 `[classes]`.
        margins: float32 `[features]`.
        band: margins this near to 0 are near ties.
    """
    said = prediction.to_dict()
    mask = np.array(said["mask"], dtype=bool).reshape(-1)
    fields = ("label", "label_id", "scores", "rationale", "rationale_ratio", "truncated")

    return {
        "schema": SCHEMA,
        "input_sha256": hash_of_input(_content(source, prediction)),
        **{name: said[name] for name in fields if name in said},
        "logits": [float(value) for value in logits],
        "selected": np.flatnonzero(mask).tolist(),
        "margins": [float(value) for value in margins[mask]],
        "near_ties": int((np.abs(margins) <= band).sum()),
    }


def _content(source: Any, prediction: Prediction) -> Any:
    """What is hashed: a text itself, and an image's file where it is named by a path."""
    return source if hasattr(prediction, "tokens") or not isinstance(source, str | os.PathLike) else Path(source)


def _open(path: Path) -> BinaryIO:
    """Open a log for reading and appending, and lock it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = os.fdopen(os.open(path, flags, 0o600), "r+b")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); give --record another file.") from error

    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{path} is no file that can be read again; give --record another one.")

    try:
        _lock(file)
    except OSError as error:
        file.close()
        raise InputError(f"Another process writes to {path}; wait for it, or give --record another file.") from error

    return file


def _lock(file: BinaryIO) -> None:
    """Lock an open file for this process; the system lets go of it with the file."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _last(file: BinaryIO, path: Path) -> str:
    """The SHA-256 of the last record; a line that a stopped call left unfinished is removed.

    Raises:
        InputError: the file holds something else.
    """
    end = file.seek(0, SEEK_END)
    start = max(0, end - 2 * LONGEST_RECORD)
    file.seek(start)
    tail = file.read(end - start)
    whole = tail[: tail.rfind(b"\n") + 1]

    if not whole:
        if tail and not tail.startswith(BEGINNING):
            raise InputError(f"{path} is not a log of decisions; give --record another file.")
        file.truncate(0)
        return FIRST

    last = whole[:-1].rpartition(b"\n")[2] + b"\n"
    before = parse(last, f"The last line of {path}")["sha256"]
    file.truncate(start + len(whole))
    return str(before)

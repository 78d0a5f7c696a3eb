"""What a run is known by: digests of the models it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rekd_edge.errors import InputError
from rekd_edge.files import sha256_of
from rekd_edge.runs.layout import RunFolder

__all__ = ["model_digests", "source_digests"]


def model_digests(run: RunFolder) -> list[str]:
    """SHA-256 of a run's model: its configuration and its weights, wherever the run stands.

    Raises:
        InputError: one of the files cannot be read.
    """
    try:
        return [sha256_of(run.config_file), sha256_of(run.model_file)]
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read; restore it or train that run again.") from error


def source_digests(teachers: Sequence[Path], controls: Sequence[Path] = ()) -> dict[str, list[str]]:
    """Digests of the `teacher` and the `control` runs that a run is trained from; empty lists where there are none.

    Raises:
        InputError: a file of theirs cannot be read.
    """
    folders = {"teacher": teachers, "control": controls}
    return {
        role: [digest for path in paths for digest in model_digests(RunFolder(path))] for role, paths in folders.items()
    }

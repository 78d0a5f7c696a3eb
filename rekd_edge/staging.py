"""Write a folder whole or not at all: build it beside its destination, then rename."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rekd_edge.errors import InputError

__all__ = ["check_output_folder", "check_place", "staged_folder"]


def check_place(folder: Path) -> None:
    """Whether there may be such a folder.

    Raises:
        InputError: it, or what should hold it, is a file.
    """
    file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
    if file is not None:
        raise InputError(f"{file} is a file; give --output a new folder.")


def check_output_folder(output: Path) -> None:
    """Refuse an output path that is a file or a non-empty folder, before any work is done.

    Raises:
        InputError: the path is taken.
    """
    check_place(output)
    if output.is_symlink():
        raise InputError(f"{output} is a link; give --output a new folder.")
    if output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output} is not empty; give --output a new folder or remove this one.")


@contextmanager
def staged_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `output` that becomes `output` on success and vanishes on failure.

    Raises:
        InputError: `output` is a file or a non-empty folder.
    """
    check_output_folder(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield staging
        staging.chmod(0o755)
        if output.is_dir():
            output.rmdir()
        staging.rename(output)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise

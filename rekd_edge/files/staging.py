"""Write a folder whole or not at all: build it beside its destination, then rename."""

from __future__ import annotations

import glob
import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rekd_edge.files.atomic import sync_folder, sync_tree
from rekd_edge.files.locks import locked
from rekd_edge.files.ownership import MARKER, claim_folder, remove_ours, remove_unclaimed
from rekd_edge.files.paths import check_output_folder

__all__ = ["built_in_place", "staged_folder"]


@contextmanager
def staged_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `output` that becomes `output` on success and vanishes on failure.

    The output is locked meanwhile, and what killed calls left beside it is removed.

    Raises:
        InputError: `output` is a file, a link or a non-empty folder, or another call writes to it.
    """
    check_output_folder(output)
    with locked(output):
        check_output_folder(output)  # another call may have written it while this one waited
        remove_stale_staging(output)
        staging = claim_folder(output.with_name(f".{output.name}.{secrets.token_hex(8)}"), _purpose(output))

        try:
            content = staging / output.name  # beside the marker, which is no part of the output
            content.mkdir()
            yield content

            sync_tree(content)

            if output.is_dir():
                output.rmdir()

            content.rename(output)
            sync_folder(output.parent)
        finally:
            with suppress(OSError):
                remove_ours(staging, _purpose(output))


@contextmanager
def built_in_place(output: Path, parts: Collection[str]) -> Iterator[Path]:
    """Yield a new folder at `output` itself, for content that holds its own path; it vanishes on failure.

    The output is locked meanwhile, and what a killed call left there is removed.

    Args:
        output: the folder.
        parts: names of what will be in it; nothing else is ever removed.

    Raises:
        InputError: `output` is a file, a link or a folder with files of others, or another call writes to it.
    """
    with locked(output):
        remove_ours(output, _purpose(output), parts)
        check_output_folder(output)
        claim_folder(output, _purpose(output))

        try:
            yield output
            sync_tree(output)
        except BaseException:
            with suppress(OSError):
                remove_ours(output, _purpose(output), parts)
            raise

        (output / MARKER).unlink()


def remove_stale_staging(output: Path) -> None:
    """Remove the staging folders of calls that were killed; the caller holds the lock of `output`."""
    token = re.compile(r"[0-9a-f]{16}")
    for path in output.parent.glob(f".{glob.escape(output.name)}.*"):
        if not remove_ours(path, _purpose(output)) and token.fullmatch(path.name.rpartition(".")[2]):
            remove_unclaimed(path)


def _purpose(output: Path) -> str:
    return f"staging of {output.name}"

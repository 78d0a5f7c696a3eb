"""A list of digests that seals a folder: written last, it says that all the rest is there and whole.

The file has the format of `sha256sum`, which can check it too: `cd FOLDER && sha256sum -c SHA256SUMS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from rekd_edge.files.atomic import sync_tree, write_text
from rekd_edge.files.documents import sha256_of
from rekd_edge.files.ownership import MARKER

__all__ = ["DIGESTS", "verify_digests", "write_digests"]

DIGESTS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def write_digests(folder: Path) -> None:
    """Write the SHA-256 of every file in a folder and those below it, once they are on the disk.

    Raises:
        ValueError: a file is no regular one, a link for example, or its name has a line break or a backslash.
    """
    sync_tree(folder)
    lines = []

    for name in sorted(_names(folder)):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"{path} is no regular file.")
        if _LINE.fullmatch(f"{'0' * 64}  {name}") is None or "\\" in name:
            raise ValueError(f"{name!r} cannot stand in a list of digests.")

        lines.append(f"{sha256_of(path, follow_links=False)}  {name}\n")

    write_text(folder / DIGESTS, "".join(lines))


def verify_digests(folder: Path) -> str | None:
    """Compare a folder with its list.

    Returns:
        What is wrong, as the end of a sentence that begins with the folder ("has no SHA256SUMS"); None where every
        listed file is there and as it was, and nothing else is.
    """
    try:
        text = (folder / DIGESTS).read_text(encoding="utf-8") if not (folder / DIGESTS).is_symlink() else ""
    except (OSError, ValueError):
        return f"has no {DIGESTS}"

    *lines, end = text.split("\n")
    matches = [_LINE.fullmatch(line) for line in lines]

    listed = {match[2]: match[1] for match in matches if match is not None}
    if not listed or len(listed) < len(lines) or end:
        return f"has a damaged {DIGESTS}"

    present = set(_names(folder))
    if missing := listed.keys() - present:
        return f"lacks {min(missing)}"
    if extra := present - listed.keys():
        return f"holds {min(extra)}, which its {DIGESTS} does not list"

    for name, digest in listed.items():
        try:
            same = sha256_of(folder / name, follow_links=False) == digest
        except OSError:
            same = False

        if not same:
            return f"has a damaged {name}"

    return None


def _names(folder: Path, below: str = "") -> Iterator[str]:
    """Files and links, relative to the folder and with `/` between parts; the list itself and markers are left out."""
    for entry in os.scandir(folder / below):
        name = f"{below}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _names(folder, f"{name}/")
        elif entry.name != MARKER and name != DIGESTS:
            yield name

"""Texts that stand one a line, read alike wherever they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from rekd_edge.errors import InputError

__all__ = ["LONGEST_LINE", "text_lines"]

LONGEST_LINE = 2**24
"""Bytes of one text."""


def text_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """UTF-8 lines, whatever the locale; bytes that are none are replaced, and a byte order mark is no text.

    Args:
        stream: of bytes; only a line feed, or a carriage return before it, ends a line.
        name: of the stream, for messages.

    Raises:
        InputError: a line is longer than `LONGEST_LINE`.
    """
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise InputError(f"Line {number} of {name} has more than {LONGEST_LINE} bytes; give it in parts.")
        text = line.decode("utf-8", errors="replace").rstrip("\r\n")
        yield text.removeprefix("\ufeff") if number == 1 else text

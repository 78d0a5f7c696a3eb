"""The border to the terminal: every string from outside passes it before it is printed."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["in_one_line", "printable"]

UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What could move the cursor, reorder the line or fail to encode; tabs and line ends stay."""


def printable(text: str) -> str:
    """A text without what a terminal would obey instead of showing."""
    return UNPRINTABLE.sub("", text.replace("\r\n", "\n"))


def in_one_line(value: Any) -> str:
    """Anything as one printable line; a line end within it becomes a space."""
    return printable(" ".join(str(value).splitlines()))

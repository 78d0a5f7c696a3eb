"""How many inputs are worked on at a time: rows of like length share a batch, and long calls are done in parts.

Answers depend on neither; speed does, and memory: beside the answers no more is held than one part and one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rekd_edge.errors import InputError

__all__ = ["batches_of_like_length", "check_batch_size", "image_batches", "parts"]

PADDING = 0.1  # share of a batch that may be padding: more is slower than a batch of its own
PART_TEXTS, PART_CHARACTERS = 1024, 2**22
BATCH_POSITIONS = 2**15
BATCH_PIXEL_BYTES = 2**26


def check_batch_size(batch_size: int) -> None:
    """Refuse what is no number of rows.

    Raises:
        InputError: `batch_size` is no whole number above 0.
    """
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}; give a whole number of 1 or more.")


def parts(texts: Sequence[Any]) -> Iterator[slice]:
    """Divide texts, in order, into parts that are tokenised together."""
    start = characters = 0
    for index, text in enumerate(texts):
        length = len(text) if isinstance(text, str) else 0
        if index > start and (index - start == PART_TEXTS or characters + length > PART_CHARACTERS):
            yield slice(start, index)
            start, characters = index, 0
        characters += length

    if start < len(texts):
        yield slice(start, len(texts))


def batches_of_like_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of rows by length, in batches of at most `batch_size` of whose positions at most a tenth is padding.

    A batch of several rows has at most `BATCH_POSITIONS` positions.
    """
    batches: list[list[int]] = []
    held = 0  # positions of the last batch that are no padding

    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        rows = len(batches[-1]) + 1 if batches else 0

        fits = 0 < rows <= batch_size and length * rows <= BATCH_POSITIONS
        if fits and held + length >= (1 - PADDING) * length * rows:
            batches[-1].append(index)
            held += length
        else:
            batches.append([index])
            held = length

    return batches


def image_batches(count: int, batch_size: int, height: int, width: int) -> Iterator[range]:
    """Indices of images in batches of at most `batch_size`, and of `BATCH_PIXEL_BYTES` where they are several."""
    rows = max(1, min(batch_size, BATCH_PIXEL_BYTES // (3 * height * width * 4)))
    for start in range(0, count, rows):
        yield range(start, min(start + rows, count))

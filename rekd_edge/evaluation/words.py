"""From a tokenizer's pieces to the whitespace words in which people mark, and long texts in overlapping windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rekd_edge.evaluation.masks import Mask

__all__ = ["LOWEST", "Window", "in_pieces", "in_words", "mask_of", "merged", "windows_of", "words_within"]

Span = tuple[int, int]
LOWEST = float(np.finfo(np.float32).min)
"""The score of a word that was not read."""


@dataclass(frozen=True)
class Window:
    """A stretch of a text: words `first` to `last`, the last excluded, and the same in characters."""

    first: int
    last: int
    start: int
    end: int


def words_within(words: Sequence[Span], spans: Sequence[Span]) -> list[Span]:
    """Marked spans in characters as spans of the words they overlap, (first, last) with the last excluded."""
    starts, ends = np.array(words, dtype=np.int64).reshape(-1, 2).T
    found = []
    for start, end in spans:
        inside = np.flatnonzero((starts < end) & (ends > start))
        if inside.size:
            found.append((int(inside[0]), int(inside[-1]) + 1))
    return found


def mask_of(words: int, spans: Sequence[Span]) -> Mask:
    """Spans (first, last) as a mask, bool [words]."""
    mask = np.zeros(words, dtype=bool)
    for first, last in spans:
        mask[first:last] = True
    return mask


def in_words(
    words: Sequence[Span], offsets: Sequence[Span], mask: Mask, scores: NDArray[np.floating]
) -> tuple[Mask, NDArray[np.float64]]:
    """A mask and scores of pieces as a mask and scores of words.

    A word is selected if one of its pieces is, and its score is the best of theirs. A word without a piece (beyond the
    end of what was read) is not selected, and scores `LOWEST`.

    Args:
        words: (start, end) in characters of every word, in order.
        offsets: the same of every piece that is a feature.
        mask: bool [pieces].
        scores: [pieces].
    """
    chosen, values = np.zeros(len(words), dtype=bool), np.full(len(words), LOWEST)
    for piece, word in enumerate(_word_of(words, offsets)):
        if word >= 0:
            chosen[word] |= mask[piece]
            values[word] = max(values[word], float(scores[piece]))

    return chosen, values


def in_pieces(words: Sequence[Span], offsets: Sequence[Span], mask: Mask) -> Mask:
    """A mask of words as a mask of pieces: every piece of a selected word, and none that stands in no word.

    Args:
        words: (start, end) in characters of every word, in order.
        offsets: the same of every piece that is a feature.
        mask: bool [words].
    """
    place = _word_of(words, offsets)
    return np.array([word >= 0 and bool(mask[word]) for word in place], dtype=bool)


def windows_of(words: Sequence[Span], pieces: NDArray[np.integer], longest: int) -> list[Window]:
    """Cut a text into windows of whole words, each of at most `longest` pieces and half over the one before.

    Args:
        words: (start, end) in characters of every word, in order.
        pieces: how many pieces each word takes [words].
        longest: pieces that a model reads, special tokens left out.
    """
    windows: list[Window] = []
    first = 0

    while first < len(words):
        last = _fitting(pieces, first, longest)
        windows.append(Window(first, last, words[first][0], words[last - 1][1]))
        if last == len(words):
            break
        first = max(first + 1, min(last, _fitting(pieces, first, longest // 2)))

    return windows


def merged(
    windows: Sequence[Window], masks: Sequence[Mask], scores: Sequence[NDArray[np.floating]]
) -> tuple[Mask, NDArray[np.float64]]:
    """One mask and one row of scores for a text from those of its windows, in words.

    Each word is judged by the window in which it stands farthest from an edge at which the text goes on, the first of
    several.
    """
    count = windows[-1].last if windows else 0
    mask, values, room = np.zeros(count, dtype=bool), np.full(count, LOWEST), np.full(count, -1)

    for window, chosen, row in zip(windows, masks, scores, strict=True):
        place = np.arange(window.first, window.last)
        before = place - window.first if window.first else np.full(len(place), count)
        after = window.last - 1 - place if window.last < count else np.full(len(place), count)
        farther = np.minimum(before, after) > room[place]
        mask[place[farther]], values[place[farther]] = chosen[farther], row[farther]
        room[place] = np.maximum(room[place], np.minimum(before, after))

    return mask, values


def _word_of(words: Sequence[Span], offsets: Sequence[Span]) -> NDArray[np.int64]:
    """The word in which each piece starts, -1 where it is in none."""
    if not words:
        return np.full(len(offsets), -1)

    starts, ends = np.array(words, dtype=np.int64).T
    begin = np.array(offsets, dtype=np.int64).reshape(-1, 2)[:, 0]
    place = np.searchsorted(starts, begin, side="right") - 1
    return np.where((place >= 0) & (begin < ends[place]), place, -1)


def _fitting(pieces: NDArray[np.integer], first: int, longest: int) -> int:
    """The end of the longest run of words from `first` that takes at most `longest` pieces, at least one word."""
    taken = np.cumsum(pieces[first:])
    return first + max(1, int(np.searchsorted(taken, longest, side="right")))

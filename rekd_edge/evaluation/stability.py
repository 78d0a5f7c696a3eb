"""Stability: do rationales stay when a text changes in ways that mean nothing, and are they those of other seeds?

From strings and masks alone. A change keeps the number of whitespace words, so that masks in words can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from rekd_edge.evaluation.masks import Mask, mask_overlap

__all__ = ["CHANGES", "change_case", "change_whitespace", "make_typos", "overlap_across", "pairwise_overlap"]

TYPO_SHARE = 0.05
"""Of the words that are long enough, at least one."""
LONGEST_GAP = 3


def make_typos(text: str, rng: np.random.Generator) -> str:
    """Two neighbouring letters inside a word change places, in one of twenty words of four or more characters.

    First and last character stay, and equal neighbours are passed over.
    """
    parts = re.split(r"(\s+)", text)
    places = {at: _swaps(word) for at, word in enumerate(parts) if word and not word.isspace()}
    able = [at for at, swaps in places.items() if swaps]

    for at in rng.permutation(able)[: max(1, round(TYPO_SHARE * len(able)))].tolist():
        word, first = parts[at], int(rng.choice(places[at]))
        parts[at] = word[:first] + word[first + 1] + word[first] + word[first + 2 :]

    return "".join(parts)


def change_case(text: str, rng: np.random.Generator) -> str:
    """Capital letters become small; a text without any becomes all capital."""
    lower = text.lower()
    return text.upper() if lower == text else lower


def change_whitespace(text: str, rng: np.random.Generator) -> str:
    """Every gap between words becomes one to three spaces, and some are put before and after."""
    words = text.split()
    gaps = rng.integers(1, LONGEST_GAP + 1, len(words) + 1)
    return " " * int(gaps[0]) + "".join(word + " " * int(gap) for word, gap in zip(words, gaps[1:], strict=True))


CHANGES: dict[str, Callable[[str, np.random.Generator], str]] = {
    "typos": make_typos,
    "case": change_case,
    "whitespace": change_whitespace,
}
"""What `evaluate --stability` does to a text."""


def pairwise_overlap(systems: Sequence[Sequence[Mask]]) -> list[list[float]]:
    """Mean Jaccard index of each pair of systems' masks of the same features, `[systems][systems]`."""
    return [[mask_overlap(one, other) for other in systems] for one in systems]


def overlap_across(systems: Sequence[Sequence[Mask]]) -> float:
    """The mean of that over all pairs, as of the seeds of one method; 1 for a single system."""
    overlaps = [mask_overlap(one, other) for one, other in combinations(systems, 2)]
    return float(np.mean(overlaps)) if overlaps else 1.0


def _swaps(word: str) -> list[int]:
    """Where in a word two different neighbouring letters stand, its first and last character left out."""
    return [
        at for at in range(1, len(word) - 2) if word[at : at + 2].isalpha() and word[at] != word[at + 1]
    ]  # fmt: skip

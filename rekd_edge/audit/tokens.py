"""Which tokens are selected, against where they are present."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from rekd_edge.evaluation.masks import Mask
from rekd_edge.systems import TextRows

__all__ = ["Occurrence", "Signal", "occurrences", "signals"]


@dataclass(frozen=True)
class Occurrence:
    """A token, and which inputs hold it and show it, bool `[n]` each."""

    token: str
    present: NDArray[np.bool_]
    selected: NDArray[np.bool_]


@dataclass(frozen=True)
class Signal:
    """What the selection of a token says of a label beyond its presence."""

    token: str
    label: str
    excess: float
    """Share of the label among inputs that show the token, less its share among inputs that hold it."""
    p: float
    """Of Fisher's exact test: label against selection, among the inputs that hold the token."""
    selected_in: int
    present_in: int


def occurrences(rows: TextRows, masks: Sequence[Mask]) -> list[Occurrence]:
    """Every token that is selected somewhere, in alphabetical order."""
    present: dict[str, set[int]] = {}
    selected: dict[str, set[int]] = {}
    for row, mask in enumerate(masks):
        for token, chosen in zip(rows.tokens(row), mask, strict=True):
            present.setdefault(token, set()).add(row)
            if chosen:
                selected.setdefault(token, set()).add(row)

    count = len(rows)
    return [
        Occurrence(token, _members(present[token], count), _members(selected[token], count))
        for token in sorted(selected)
    ]


def signals(found: Sequence[Occurrence], labels: NDArray[np.int64], names: Sequence[str], least: float) -> list[Signal]:
    """What tokens that are selected in at least the share `least` of a label's inputs say of that label."""
    result = []
    for each in found:
        for label, name in enumerate(names):
            mine = labels == label
            if not mine.any() or (each.selected & mine).sum() < least * mine.sum():
                continue

            passed = each.present & ~each.selected
            table = [[int((group & mine).sum()), int((group & ~mine).sum())] for group in (each.selected, passed)]
            excess = float(mine[each.selected].mean() - mine[each.present].mean())
            p = float(fisher_exact(table).pvalue)
            result.append(Signal(each.token, name, excess, p, int(each.selected.sum()), int(each.present.sum())))

    return result


def _members(rows: set[int], count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, dtype=bool)
    mask[list(rows)] = True
    return mask

"""Split-conformal prediction: a threshold on probabilities that keeps a promise, from rows on which nothing was chosen.

Rows that were set apart from training, from the choice of the epoch and from calibration are exchangeable with later
inputs. The rank of the true label's probability of the next one among theirs is then uniform, whatever the model is
(Vovk et al. 2005; Angelopoulos and Bates, https://arxiv.org/abs/2107.07511, section 1).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rekd_edge.errors import InputError

__all__ = ["check_coverage", "conformal_promise", "conformal_threshold", "rows_needed"]


def rows_needed(coverage: float) -> int:
    """The fewest rows from which a coverage can be promised, ⌈c / (1 − c)⌉: 9 for 0.9, 99 for 0.99."""
    exact = _exact(coverage)
    return math.ceil(exact / (1 - exact))


def check_coverage(coverage: float, rows: int) -> None:
    """Hold a coverage against the number of rows that were set apart.

    Raises:
        InputError: it is out of range, or there are too few rows for it.
    """
    if not 0 < coverage < 1:
        raise InputError(f"A coverage of {coverage} cannot be promised; give a number above 0 and below 1.")

    if rows < rows_needed(coverage):
        raise InputError(
            f"A coverage of {coverage} takes at least {rows_needed(coverage)} rows that were set apart, and there are "
            f"{rows}; set more apart (data.conformal_share), or ask for less."
        )


def conformal_threshold(scores: NDArray[np.floating], labels: NDArray[np.integer], coverage: float) -> float:
    """The probability from which on a label counts as possible.

    Of the true labels' probabilities the k-th highest, k = ⌈(n + 1) · coverage⌉. The labels that reach it hold the true
    one of a new input with a probability of at least `coverage`, over draws of the rows and of the input.

    Args:
        scores: probabilities `[rows, classes]` of rows on which nothing was chosen.
        labels: their true label ids `[rows]`.
        coverage: above 0 and below 1.

    Raises:
        InputError: the coverage is out of range, or there are too few rows for it.
    """
    check_coverage(coverage, len(labels))
    rank = math.ceil((len(labels) + 1) * _exact(coverage))
    of_the_truth = np.asarray(scores, dtype=np.float64)[np.arange(len(labels)), labels]
    return float(np.sort(of_the_truth)[::-1][rank - 1])


def conformal_promise(scores: NDArray[np.floating], labels: NDArray[np.integer], coverage: float) -> dict[str, Any]:
    """What a manifest states: `coverage`, `threshold` and `rows`.

    Also what it means on those rows: the share that is `answered`, with one possible label, and the share that is
    answered `wrong`, both of all rows.

    Raises:
        InputError: as for `conformal_threshold`.
    """
    threshold = conformal_threshold(scores, labels, coverage)
    answered = (scores >= threshold).sum(axis=1) == 1
    wrong = answered & (scores.argmax(axis=1) != labels)

    return {
        "coverage": coverage,
        "threshold": threshold,
        "rows": len(labels),
        "answered": float(answered.mean()),
        "wrong": float(wrong.mean()),
    }


def _exact(coverage: float) -> Fraction:
    """The number as it is written: 0.9 is nine tenths, not the nearest binary fraction."""
    return Fraction(str(float(coverage)))

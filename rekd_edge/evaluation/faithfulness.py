"""Faithfulness: does the decision rest on the rationale?

Sufficiency and comprehensiveness of ERASER (https://arxiv.org/abs/1911.03429, section 4.2) from probabilities alone, so
that any system that can be asked about a part of its input can be judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rekd_edge.evaluation.masks import Mask, top_share

__all__ = ["AOPC_SHARES", "Classify", "comprehensiveness", "faithfulness", "flip_rate", "sufficiency"]

AOPC_SHARES = (0.01, 0.05, 0.10, 0.20, 0.50)
"""Shares of the features over which ERASER averages."""

Scores = NDArray[np.floating]
"""Probabilities [examples, classes]."""
Classify = Callable[[Sequence[Mask]], Scores]
"""Probabilities of every example when the system sees the features in its mask alone."""


def sufficiency(whole: Scores, rationale: Scores) -> NDArray[np.float64]:
    """p(ŷ | x) − p(ŷ | r) of each example [examples], ŷ being the decision on the whole input; small is good."""
    return _loss_of_confidence(whole, rationale)


def comprehensiveness(whole: Scores, rest: Scores) -> NDArray[np.float64]:
    """p(ŷ | x) − p(ŷ | x without r) of each example [examples], ŷ as in `sufficiency`; large is good."""
    return _loss_of_confidence(whole, rest)


def flip_rate(whole: Scores, rest: Scores) -> float:
    """The share of examples whose decision changes once the rationale is taken away."""
    return float(np.mean(whole.argmax(axis=1) != rest.argmax(axis=1)))


def faithfulness(
    classify: Classify,
    masks: Sequence[Mask],
    scores: Sequence[NDArray[np.floating]] | None = None,
    shares: Sequence[float] = AOPC_SHARES,
) -> dict[str, float]:
    """Sufficiency, comprehensiveness and decision flips of hard rationales and, from scores, over several sizes.

    Args:
        classify: asks the system that is judged; it is called with masks of all examples.
        masks: the rationales, bool [features] each.
        scores: how much each feature matters, [features] each; the `…_aopc` figures are left out without them.
        shares: sizes of the rationales that the scores are cut to; ERASER's by default.

    Returns:
        `sufficiency`, `comprehensiveness` (means over the examples), `flip_rate`, and `sufficiency_aopc`,
        `comprehensiveness_aopc`, their means over the sizes too.
    """
    whole = classify([np.ones_like(mask) for mask in masks])

    def losses(kept: Sequence[Mask]) -> tuple[float, float]:
        alone, rest = classify(kept), classify([~mask for mask in kept])
        return float(sufficiency(whole, alone).mean()), float(comprehensiveness(whole, rest).mean())

    enough, needed = losses(masks)
    figures = {
        "sufficiency": enough,
        "comprehensiveness": needed,
        "flip_rate": flip_rate(whole, classify([~mask for mask in masks])),
    }

    if scores is not None:
        points = [losses([top_share(row, share) for row in scores]) for share in shares]
        enough, needed = np.mean(points, axis=0)
        figures |= {"sufficiency_aopc": float(enough), "comprehensiveness_aopc": float(needed)}

    return figures


def _loss_of_confidence(whole: Scores, part: Scores) -> NDArray[np.float64]:
    decided = whole.argmax(axis=1)
    rows = np.arange(len(whole))
    return np.asarray(whole[rows, decided] - part[rows, decided], dtype=np.float64)

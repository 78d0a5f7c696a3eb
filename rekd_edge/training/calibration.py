"""Bring the deterministic rationale ratio to its target by one bias on the selection margin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["calibrated_bias"]


def calibrated_bias(margins: Sequence[np.ndarray], target_ratio: float, length: int | None = None) -> float:
    """The bias at which the mean ratio |M| / L over the examples comes closest to the target.

    An example's largest margin is selected at any bias (the fallback of the deterministic rule), so the other margins
    are admitted from the largest down until the mean ratio is closest to the target. The bias lies midway between the
    last margin admitted and the first one not.

    Args:
        margins: uncalibrated margins z_1 - z_0, one float array [features] an example.
        target_ratio: p_target.
        length: L of every example where it is not the example's own number of features (`count_all_positions`).

    Returns:
        The bias; 0 where there is nothing to calibrate on.
    """
    margins = [np.asarray(margin, np.float64) for margin in margins if len(margin)]
    if not margins:
        return 0.0
    shares = np.array([1.0 / (length or len(margin)) for margin in margins]) / len(margins)
    rest, weights = [], []
    for margin, share in zip(margins, shares, strict=True):
        rest.append(np.delete(margin, np.argmax(margin)))
        weights.append(np.full(len(margin) - 1, share))
    other = np.concatenate(rest)
    order = np.argsort(-other, kind="stable")
    other = other[order]
    # ratio after admitting the k largest of the others; only borders between different margins can be realised
    ratio = shares.sum() + np.concatenate([[0.0], np.cumsum(np.concatenate(weights)[order])])
    border = np.concatenate([[True], other[1:] < other[:-1], [True]]) if len(other) else np.array([True])
    candidates = np.flatnonzero(border)
    admitted = int(candidates[np.argmin(np.abs(ratio[candidates] - target_ratio))])
    every = np.unique(np.concatenate(margins))
    above = other[admitted - 1] if admitted else every[-1] + 1.0
    below = other[admitted] if admitted < len(other) else every[0] - 1.0
    # the largest margins of other examples may lie in the gap; stay midway between two neighbours
    neighbour = every[every < above]
    upper = above
    lower = neighbour[-1] if admitted and len(neighbour) else below
    return float(-(upper + lower) / 2)

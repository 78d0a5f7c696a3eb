"""Bring the deterministic rationale ratio to its target by one bias on the selection margin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["calibrated_bias"]


def calibrated_bias(
    margins: Sequence[np.ndarray],
    target_ratio: float,
    lengths: Sequence[int] | None = None,
    minimum: int = 1,
    maximum: int | None = None,
    slack: float = 0.0,
) -> float:
    """The bias at which the mean ratio |M| / L over the examples comes closest to the target.

    An example's largest margins, as many as the minimum, are selected at any bias (one is the fallback of the
    deterministic rule), so the other margins are admitted from the largest down until the mean ratio is closest to the
    target, at most up to each example's maximum. The bias lies midway between the last margin admitted and the first
    one not.

    Args:
        margins: uncalibrated margins z_1 - z_0, one float array [candidates] an example.
        target_ratio: p_target.
        lengths: L of each example where it is not the number of its candidates.
        minimum: fewest features of a rationale.
        maximum: most features of a rationale.
        slack: how far from the target the ratio may be; of the biases that come as near, the one furthest from any
            margin is taken.

    Returns:
        The bias; 0 where there is nothing to calibrate on.
    """
    pairs = [
        (np.sort(np.asarray(margin, np.float64))[::-1], length)
        for margin, length in zip(margins, lengths or [len(margin) for margin in margins], strict=True)
        if len(margin)
    ]
    if not pairs:
        return 0.0
    least, rest, weights = 0.0, [], []
    for margin, length in pairs:
        share = 1.0 / length / len(pairs)
        least += share * min(minimum, len(margin))
        rest.append(margin[minimum:maximum])
        weights.append(np.full(len(rest[-1]), share))
    other = np.concatenate(rest)
    order = np.argsort(-other, kind="stable")
    other = other[order]
    # ratio after admitting the k largest of the others; only borders between different margins can be realised
    ratio = least + np.concatenate([[0.0], np.cumsum(np.concatenate(weights)[order])])
    border = np.concatenate([[True], other[1:] < other[:-1], [True]]) if len(other) else np.array([True])
    candidates = np.flatnonzero(border)
    distance = np.abs(ratio[candidates] - target_ratio)
    admitted = int(candidates[np.argmin(distance)])
    every = np.unique(np.concatenate([margin for margin, _ in pairs]))
    near = candidates[(distance <= slack) & (candidates > 0)]
    if len(near):
        places = np.searchsorted(every, other[near - 1])
        gaps = every[places] - every[np.maximum(places - 1, 0)]
        admitted = int(near[np.argmax(gaps)])
    above = other[admitted - 1] if admitted else every[-1] + 1.0
    below = other[admitted] if admitted < len(other) else every[0] - 1.0
    # the largest margins of other examples may lie in the gap; stay midway between two neighbours
    neighbour = every[every < above]
    lower = neighbour[-1] if admitted and len(neighbour) else below
    return float(-(above + lower) / 2)

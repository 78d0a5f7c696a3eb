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
    units: Sequence[np.ndarray] | None = None,
) -> float:
    """The bias at which the mean ratio |M| / L over the examples comes closest to the target.

    An example's best units (words, or single features) are selected at any bias until they hold the minimum (one is
    the fallback of the deterministic rule), and none that would pass the maximum ever is. The others are admitted from
    the largest margin down until the mean ratio is closest to the target. The bias lies midway between the last margin
    admitted and the first one not.

    Args:
        margins: uncalibrated margins z_1 - z_0, one float array [candidates] an example.
        target_ratio: p_target.
        lengths: L of each example where it is not the number of its candidates.
        minimum: fewest features of a rationale.
        maximum: most features of a rationale.
        slack: how far from the target the ratio may be; of the biases that come as near, the one furthest from any
            margin is taken.
        units: what is selected together, named by the place of its first feature, int array [candidates] an example;
            every candidate by itself where None.

    Returns:
        The bias; 0 where there is nothing to calibrate on.
    """
    lengths = lengths or [len(margin) for margin in margins]
    units = units or [np.arange(len(margin)) for margin in margins]

    examples = [each for each in zip(margins, lengths, units, strict=True) if len(each[0])]
    if not examples:
        return 0.0

    other, ratio = _admissions(examples, minimum, maximum)
    # only borders between different margins can be realised
    border = np.concatenate([[True], other[1:] < other[:-1], [True]]) if len(other) else np.array([True])
    candidates = np.flatnonzero(border)
    distance = np.abs(ratio[candidates] - target_ratio)
    admitted = int(candidates[np.argmin(distance)])
    every = np.unique(np.concatenate([np.asarray(margin, np.float64) for margin, _, _ in examples]))

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


def _admissions(
    examples: Sequence[tuple[np.ndarray, int, np.ndarray]], minimum: int, maximum: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Margins of the units that the bias decides on, the largest first, and the ratio with the first k of them.

    Args:
        examples: margins, length and units of each example.
        minimum: fewest features of a rationale, selected at any bias.
        maximum: most features of a rationale.

    Returns:
        Margins, float64 [units], and mean ratios, float64 [units + 1]: the first one with none of the units admitted.
    """
    least, rest, weights = 0.0, [], []

    for margin, length, unit in examples:
        names, first, size = np.unique(unit, return_index=True, return_counts=True)
        values = np.asarray(margin, np.float64)[first]
        order = np.lexsort((names, -values))
        values, size = values[order], size[order]

        before = np.cumsum(size) - size
        share = size / length / len(examples)
        always = before < minimum
        open_ = ~always if maximum is None else ~always & (before + size <= maximum)

        least += share[always].sum()
        rest.append(values[open_])
        weights.append(share[open_])

    other = np.concatenate(rest)
    order = np.argsort(-other, kind="stable")
    return other[order], least + np.concatenate([[0.0], np.cumsum(np.concatenate(weights)[order])])

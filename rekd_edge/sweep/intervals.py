"""95 % intervals over seeds: of a mean difference, and of the share that distillation wins back.

Figures are paired by seed: the difference is taken within a seed, where both runs share data, control and warm start.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy import stats

__all__ = ["LEVEL", "Interval", "is_shown", "of_difference", "of_share"]

LEVEL = 0.95

Interval = dict[str, Any]
"""`mean`, `std`, `n`, and the bounds `low` and `high`; None if there is no such number."""


def of_difference(differences: Sequence[float]) -> Interval:
    """The mean of differences, one per seed, with the interval of the paired t test.

    `std` and the bounds are None for a single seed.
    """
    n, mean = len(differences), statistics.fmean(differences)
    if n < 2:
        return {"mean": mean, "std": None, "low": None, "high": None, "n": n}
    std = statistics.stdev(differences)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * std / math.sqrt(n)
    return {"mean": mean, "std": std, "low": mean - half, "high": mean + half, "n": n}


def of_share(parts: Sequence[float], wholes: Sequence[float]) -> Interval | None:
    """Σ parts / Σ wholes, one pair per seed, with the interval that inverts the paired t test (Fieller, 1954).

    The interval holds every share θ for which the mean of part - θ · whole does not differ from 0. Its bounds are None
    for a single seed, and if the mean of the wholes itself does not differ from 0: then no share can be excluded.

    Returns:
        None if the mean of the wholes is not positive: there is nothing to have a share of.
    """
    n, part, whole = len(parts), statistics.fmean(parts), statistics.fmean(wholes)
    if whole <= 0:
        return None

    share: Interval = {"mean": part / whole, "std": None, "low": None, "high": None, "n": n}
    if n < 2:
        return share

    # (part - θ whole)² = t² (s_pp - 2 θ s_pw + θ² s_ww) / n, a quadratic equation in θ
    factor = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) ** 2 / n
    square = whole**2 - factor * statistics.variance(wholes)
    linear = part * whole - factor * statistics.covariance(parts, wholes)
    constant = part**2 - factor * statistics.variance(parts)

    if square <= 0:
        return share

    root = math.sqrt(max(linear**2 - square * constant, 0.0))
    return share | {"low": (linear - root) / square, "high": (linear + root) / square}


def is_shown(interval: Interval) -> bool:
    """Whether the interval excludes 0."""
    low, high = interval["low"], interval["high"]
    return low is not None and high is not None and (low > 0 or high < 0)

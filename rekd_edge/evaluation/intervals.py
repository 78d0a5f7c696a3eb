"""How sure a figure is: bootstrap intervals over examples, and paired tests between systems (scipy)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap, permutation_test

__all__ = ["Difference", "Interval", "bootstrap_interval", "paired_difference", "wilson_interval"]

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """The mean difference between two systems, its interval, and the p value of a paired permutation test."""

    p: float

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def wilson_interval(right: int, count: int, level: float = 0.95) -> Interval:
    """A share of examples with its Wilson score interval, which is honest for few of them (`scipy.stats.binomtest`)."""
    found = binomtest(right, count).proportion_ci(confidence_level=level, method="wilson")
    return Interval(right / count, float(found.low), float(found.high))


def bootstrap_interval(
    *columns: NDArray[Any],
    statistic: Callable[..., Any] = np.mean,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic of examples with its percentile bootstrap interval (`scipy.stats.bootstrap`).

    Args:
        columns: one or more arrays [examples] that belong together; examples are drawn with all their columns.
        statistic: of the columns, to one number.
        level: of confidence.
        resamples: how many samples are drawn.
        seed: of the samples.
    """
    value = float(statistic(*columns))
    if len(columns[0]) < 2:
        return Interval(value, value, value)

    found = bootstrap(
        columns,
        statistic,
        paired=len(columns) > 1,
        vectorized=statistic is np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(value, float(found.confidence_interval.low), float(found.confidence_interval.high))


def paired_difference(
    one: NDArray[Any], other: NDArray[Any], *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Mean of `one` − `other` over the same examples [examples]: bootstrap interval, and two-sided permutation test."""
    gap = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    interval = bootstrap_interval(gap, level=level, resamples=resamples, seed=seed)

    if not gap.any():
        return Difference(interval.value, interval.low, interval.high, 1.0)

    # signs of paired differences are exchangeable if neither system is better
    found = permutation_test(
        (gap,),
        lambda values, axis=-1: values.mean(axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        rng=np.random.default_rng(seed),
        vectorized=True,
    )
    return Difference(interval.value, interval.low, interval.high, float(found.pvalue))

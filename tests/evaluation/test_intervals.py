"""Intervals and paired tests against the textbook's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from rekd_edge.evaluation.intervals import bootstrap_interval, paired_difference


def test_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    interval = bootstrap_interval(values)
    half = norm.ppf(0.975) * values.std() / np.sqrt(len(values))
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.04)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.04)
    assert bootstrap_interval(values) == interval


def test_columns_are_drawn_together() -> None:
    x = np.random.default_rng(2).normal(size=100)
    interval = bootstrap_interval(x, 2 * x, statistic=lambda one, two: (two - 2 * one).sum())
    assert (interval.low, interval.value, interval.high) == (0.0, 0.0, 0.0)


def test_paired_test_of_signs_is_the_binomial_one() -> None:
    one = np.array([1.0] * 9 + [0.0] * 2 + [0.0] * 20)
    other = np.array([0.0] * 9 + [1.0] * 2 + [0.0] * 20)
    found = paired_difference(one, other, resamples=20_000)
    assert found.value == pytest.approx(7 / 31)
    assert found.p == pytest.approx(binomtest(9, 11).pvalue, abs=0.01)  # McNemar's exact test
    assert found.shown


def test_equal_systems_show_nothing() -> None:
    same = np.array([0.0, 1.0, 1.0])
    found = paired_difference(same, same)
    assert (found.value, found.p, found.shown) == (0.0, 1.0, False)


def test_one_example_has_no_width() -> None:
    interval = bootstrap_interval(np.array([0.5]))
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)

"""Intervals over seeds against scipy's own tests and against hand computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rekd_edge.sweep.intervals import is_shown, of_difference, of_share

accuracies = st.lists(st.floats(-0.2, 0.2).map(lambda value: round(value, 4)), min_size=2, max_size=10)


def test_interval_of_a_difference_by_hand() -> None:
    """t of 2 degrees of freedom is 4.302653, the standard error of 1, 2 and 3 is 1 / √3."""
    interval = of_difference([0.01, 0.02, 0.03])
    half = 4.302653 * 0.01 / 3**0.5
    assert interval == {
        "mean": pytest.approx(0.02),
        "std": pytest.approx(0.01),
        "low": pytest.approx(0.02 - half, rel=1e-6),
        "high": pytest.approx(0.02 + half, rel=1e-6),
        "n": 3,
    }
    assert not is_shown(interval)
    assert is_shown(of_difference([0.01, 0.011, 0.012]))
    assert is_shown(of_difference([-0.01, -0.011, -0.012]))


@given(accuracies)
def test_interval_of_a_difference_is_scipys(differences: list[float]) -> None:
    interval = of_difference(differences)
    if np.std(differences) == 0:
        assert interval["low"] == interval["high"] == pytest.approx(differences[0])
        return
    expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert (interval["low"], interval["high"]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert is_shown(interval) == (expected.low > 0 or expected.high < 0)


def test_a_single_seed_has_no_interval() -> None:
    one = of_difference([0.3])
    assert one == {"mean": 0.3, "std": None, "low": None, "high": None, "n": 1}
    share = of_share([0.3], [0.4])
    assert share is not None
    assert share["mean"] == pytest.approx(0.75)
    assert (share["low"], share["high"]) == (None, None)
    assert not is_shown(one)
    assert not is_shown(share)


@given(accuracies, st.integers(0, 99))
def test_at_the_bounds_of_a_share_the_paired_t_test_stands_at_five_per_cent(parts: list[float], seed: int) -> None:
    random = np.random.default_rng(seed)
    part, whole = np.array(parts) + random.normal(0, 0.01, len(parts)), random.normal(0.3, 0.02, len(parts))
    share = of_share(part.tolist(), whole.tolist())
    assert share is not None
    assert share["mean"] == pytest.approx(part.mean() / whole.mean())
    if stats.ttest_1samp(whole, 0.0).pvalue >= 0.05:
        assert share["low"] is share["high"] is None
        return
    assert share["low"] <= share["mean"] <= share["high"]
    for bound in (share["low"], share["high"]):
        assert stats.ttest_1samp(part - bound * whole, 0.0).pvalue == pytest.approx(0.05, abs=1e-6)


def test_a_share_of_what_may_be_nothing_has_no_bounds() -> None:
    share = of_share([0.01, 0.02, 0.03], [0.02, -0.05, 0.06])
    assert share is not None
    assert share["mean"] == pytest.approx(2.0)
    assert (share["low"], share["high"]) == (None, None)
    assert of_share([0.01, 0.02], [-0.01, 0.01]) is None

"""The calibrated bias against every threshold there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rekd_edge.modeling.selection import Limits, deterministic_mask
from rekd_edge.training.calibration import calibrated_bias


def ratio_at(margins: list[np.ndarray], bias: float, length: int | None = None, limits: Limits | None = None) -> float:
    """Mean |M| / L under the model's own rule, in float32."""
    ratios = []
    for margin in margins:
        moved = torch.from_numpy(margin)[None] + bias
        mask = deterministic_mask(moved, torch.ones_like(moved, dtype=torch.bool), None, limits)
        ratios.append(mask.sum().item() / (length or len(margin)))
    return float(np.mean(ratios))


def every_attainable_ratio(
    margins: list[np.ndarray], length: int | None = None, limits: Limits | None = None
) -> list[float]:
    """Between each two neighbouring margins, below all and above all."""
    values = np.unique(np.concatenate(margins)).astype(np.float64)
    thresholds = [values[0] - 1, *((values[1:] + values[:-1]) / 2), values[-1] + 1]
    return [ratio_at(margins, -threshold, length, limits) for threshold in thresholds]


# quarters, so that ties within and between examples are common and sums exact
quarters = st.integers(-12, 12).map(lambda n: n / 4)
margin_lists, distinct_margin_lists = (
    st.lists(st.lists(quarters, min_size=1, max_size=8, unique=unique), min_size=1, max_size=6).map(
        lambda rows: [np.array(row, np.float32) for row in rows]
    )
    for unique in (False, True)
)


@given(margin_lists, st.floats(0.01, 1.0), st.sampled_from([None, 12]))
def test_calibrated_ratio_is_the_closest_that_any_threshold_attains(
    margins: list[np.ndarray], target: float, length: int | None
) -> None:
    lengths = None if length is None else [length] * len(margins)
    reached = ratio_at(margins, calibrated_bias(margins, target, lengths), length)
    best = min(abs(ratio - target) for ratio in every_attainable_ratio(margins, length))
    assert abs(reached - target) == pytest.approx(best, abs=1e-9)


@given(distinct_margin_lists, st.floats(0.01, 1.0), st.integers(1, 3), st.integers(3, 6))
def test_calibration_knows_the_limits(margins: list[np.ndarray], target: float, minimum: int, maximum: int) -> None:
    limits = Limits(minimum, maximum)
    reached = ratio_at(margins, calibrated_bias(margins, target, None, minimum, maximum), limits=limits)
    best = min(abs(ratio - target) for ratio in every_attainable_ratio(margins, limits=limits))
    assert abs(reached - target) == pytest.approx(best, abs=1e-9)


words = st.lists(st.integers(1, 3), min_size=1, max_size=5)


@given(st.lists(words, min_size=1, max_size=5), st.data(), st.floats(0.01, 1.0), st.integers(1, 4))
def test_calibration_knows_words(sizes: list[list[int]], data: st.DataObject, target: float, minimum: int) -> None:
    """Every threshold there is, through the model's own rule."""
    margins, units = [], []
    for row in sizes:
        values = data.draw(st.lists(quarters, min_size=len(row), max_size=len(row), unique=True))
        margins.append(np.repeat(np.array(values, np.float32), row))
        units.append(np.repeat(np.cumsum([0, *row[:-1]]), row))
    limits = Limits(minimum, data.draw(st.one_of(st.none(), st.integers(4, 8))))

    def reached(bias: float) -> float:
        ratios = []
        for margin, unit in zip(margins, units, strict=True):
            moved, feature = torch.from_numpy(margin)[None] + bias, torch.ones(1, len(margin), dtype=torch.bool)
            ratios.append(
                deterministic_mask(moved, feature, torch.from_numpy(unit)[None], limits).float().mean().item()
            )
        return float(np.mean(ratios))

    values = np.unique(np.concatenate(margins)).astype(np.float64)
    thresholds = [values[0] - 1, *((values[1:] + values[:-1]) / 2), values[-1] + 1]
    best = min(abs(reached(-threshold) - target) for threshold in thresholds)
    found = calibrated_bias(margins, target, None, minimum, limits.maximum, units=units)
    assert abs(reached(found) - target) == pytest.approx(best, abs=1e-6)


def test_features_that_are_no_candidates_count_in_the_length() -> None:
    margins = [np.array([3.0, 1.0], np.float32)]  # of four features, two were shed before
    assert calibrated_bias(margins, 0.5, [4]) == -0.5  # all of them: below 1, above what would come next
    assert -4 < calibrated_bias(margins, 0.25, [4]) < -1  # the best one alone, which stays at any bias


@given(margin_lists, st.floats(0.01, 1.0))
def test_bias_lies_midway_between_two_neighbouring_margins(margins: list[np.ndarray], target: float) -> None:
    threshold = -calibrated_bias(margins, target)
    values = np.unique(np.concatenate(margins)).astype(np.float64)
    below, above = values[values < threshold], values[values > threshold]
    if ratio_at(margins, -threshold) > ratio_at(margins, -values[-1] - 1) and len(below) and len(above):
        assert threshold == pytest.approx((below[-1] + above[0]) / 2)


def test_calibration_reaches_the_target_on_plenty_of_data() -> None:
    random = np.random.default_rng(0)
    margins = [random.normal(-4, 1, random.integers(20, 60)).astype(np.float32) for _ in range(200)]
    assert ratio_at(margins, 0.0) < 0.05
    assert ratio_at(margins, calibrated_bias(margins, 0.1)) == pytest.approx(0.1, abs=1e-3)


def test_calibration_by_hand() -> None:
    margins = [np.array([3.0, 1.0, -1.0, -5.0], np.float32)]
    assert calibrated_bias(margins, 0.5) == 0.0  # between 1 and -1
    assert calibrated_bias(margins, 0.75) == 3.0  # between -1 and -5
    assert calibrated_bias([], 0.1) == 0.0
    assert calibrated_bias([np.array([], np.float32)], 0.1) == 0.0


def test_bias_is_midway_to_the_next_margin_of_any_example() -> None:
    margins = [np.array([20.0, 7.0, 3.0], np.float32), np.array([5.0], np.float32)]
    assert calibrated_bias(margins, 5 / 6) == -6.0  # 7 is admitted, and 5, which is selected in any case, comes next
    assert calibrated_bias(margins, 2 / 3) == -14.0  # nothing is: between 7 and one above the largest
    assert calibrated_bias(margins, 1.0) == -2.5  # all are: between the smallest and one below it


def test_within_the_slack_the_bias_furthest_from_any_margin_is_taken() -> None:
    margins = [np.array([20.0, 7.0, 3.0, 2.5], np.float32)]  # ratios 1/4, 2/4, 3/4 and 1
    assert calibrated_bias(margins, 0.75) == -2.75
    assert calibrated_bias(margins, 0.75, slack=0.25) == -5.0  # 2/4 is as far as the slack allows, and 7 - 3 > 3 - 2.5
    assert calibrated_bias(margins, 0.75, slack=0.24) == -2.75
    assert calibrated_bias(margins, 0.25, slack=0.1) == -14.0  # a gap to what is selected in any case is no choice
    both = [*margins, np.array([-100.0], np.float32)]  # ratios 5/8, 6/8, 7/8 and 1
    assert calibrated_bias(both, 0.75, slack=0.125) == -5.0
    assert calibrated_bias(both, 1.0, slack=0.25) == -(2.5 - 100) / 2

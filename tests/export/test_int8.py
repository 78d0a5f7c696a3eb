"""Integers stand for numbers as closely as int8 can, and never overflow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rekd_edge.export.int8 import ActivationStats, quantize_weight, static_grid

numbers = st.floats(-4, 4, width=32, allow_subnormal=False)
matrices = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=numbers)


@given(matrices)
def test_weights_lie_within_half_a_step(weight: np.ndarray) -> None:
    values, scale = quantize_weight(weight)
    assert values.dtype == np.int8
    assert scale.shape == (weight.shape[1],)
    error = np.abs(values * scale.astype(np.float64) - weight)
    assert (error <= scale * 0.5001).all()


@given(matrices, st.booleans())
def test_no_pair_of_products_leaves_16_bits(weight: np.ndarray, corrected: bool) -> None:
    """`vpmaddubsw`: sums of two neighbouring uint8 x int8 products, saturated at 16 bits."""
    inputs = np.random.default_rng(len(weight)).normal(size=(20, 1)) + np.arange(len(weight))
    values = quantize_weight(weight, inputs.T @ inputs if corrected else None)[0].astype(np.int64)
    pairs = np.pad(values, ((0, len(values) % 2), (0, 0))).reshape(-1, 2, values.shape[1])
    largest = 255 * np.maximum(pairs, 0).sum(axis=1)
    smallest = 255 * np.minimum(pairs, 0).sum(axis=1)
    assert largest.max(initial=0) < 2**15
    assert smallest.min(initial=0) >= -(2**15)


def test_scales_are_no_larger_than_they_must_be() -> None:
    weight = np.array([[1.0, 0.5, 0.0], [-1.0, 0.5, 0.0], [0.25, 0.5, 0.0]], np.float32)
    values, scale = quantize_weight(weight)
    # opposite signs cannot add up: the whole range; equal ones can: half of it; zeros stay zeros
    np.testing.assert_allclose(scale[:2], [1 / 127, 1 / 127.5], rtol=1e-6)
    assert values.tolist() == [[127, 64, 0], [-127, 64, 0], [32, 64, 0]]


@given(matrices.filter(lambda weight: len(weight) > 1), st.randoms(use_true_random=False))
def test_a_grid_holds_what_was_seen(weight: np.ndarray, random: object) -> None:
    generator = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    seen = generator.normal(size=(20, len(weight))).astype(np.float32) * generator.uniform(0.01, 9, len(weight))
    seen = seen.astype(np.float32)
    grid = static_grid(seen.min(axis=0), seen.max(axis=0), weight)
    steps = (seen - grid.shift) / grid.step
    assert np.abs(steps).max() <= 127.01
    np.testing.assert_allclose(grid.shift, (seen.min(axis=0) + seen.max(axis=0)) / 2, rtol=1e-4, atol=1e-6)


def test_a_channel_with_a_wide_spread_gets_wide_steps() -> None:
    low, high = np.array([-1, -10], np.float32), np.array([1, 10], np.float32)
    even = np.ones((2, 3), np.float32)
    step = static_grid(low, high, even).step
    assert step[1] / step[0] == pytest.approx(10**0.8)  # SmoothQuant's alpha: the weights take over the rest
    weighty = np.array([[1, 1, 1], [0.1, 0.1, 0.1]], np.float32)
    finer = static_grid(low, high, weighty).step
    assert finer[0] / finer[1] < step[0] / step[1]  # the channel that the weights amplify is resolved more finely


def test_gptq_loses_less_of_what_correlated_inputs_give_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(300, 40)).astype(np.float32)  # more inputs than are rounded at once
    mixed = random.normal(size=(2000, 60)) @ random.normal(size=(60, 300)) + 0.1 * random.normal(size=(2000, 300))

    def lost(products: np.ndarray | None) -> float:
        values, scale = quantize_weight(weight, products)
        return float(np.square(mixed @ (values * scale - weight)).mean())

    assert lost(mixed.T @ mixed) < 0.5 * lost(None)
    # inputs that do not correlate cannot make good for one another
    nearest, corrected = (
        quantize_weight(weight, products)[0] for products in (None, np.diag(random.uniform(1, 9, 300)))
    )
    np.testing.assert_array_equal(corrected, nearest)


@given(arrays(np.float32, (7, 5), elements=numbers), arrays(np.float32, (4, 5), elements=numbers))
def test_statistics_of_parts_add_up_and_follow_a_grid(one: np.ndarray, other: np.ndarray) -> None:
    seen, rows = ActivationStats.of(one) + ActivationStats.of(other), np.concatenate([one, other]).astype(np.float64)
    np.testing.assert_array_equal(seen.low, rows.min(axis=0))
    np.testing.assert_array_equal(seen.high, rows.max(axis=0))
    np.testing.assert_allclose(seen.products, rows.T @ rows, atol=1e-3)
    grid = static_grid(seen.low, seen.high, np.ones((5, 2), np.float32))
    steps = rows * 1.0 - grid.shift
    expected = (steps.T @ steps) / np.outer(grid.step, grid.step)
    np.testing.assert_allclose(seen.in_steps(grid), expected, atol=1e-4 / grid.step.min().astype(np.float64) ** 2)


def test_products_keep_a_spread_that_is_small_beside_the_mean() -> None:
    """As behind a LayerNormalization with a large bias: plain float32 sums lose what GPTQ's Hessian needs."""
    random = np.random.default_rng(0)
    rows = (1000 + random.normal(size=(4000, 8))).astype(np.float32)
    seen = sum((ActivationStats.of(part) for part in np.split(rows[400:], 9)), ActivationStats.of(rows[:400]))
    grid = static_grid(seen.low, seen.high, np.ones((8, 2), np.float32))
    steps = (rows.astype(np.float64) - grid.shift) / grid.step
    np.testing.assert_allclose(seen.in_steps(grid), steps.T @ steps, atol=1e-4 * (steps**2).sum(axis=0).min())
    quantize_weight(random.normal(size=(8, 3)).astype(np.float32), seen.in_steps(grid))

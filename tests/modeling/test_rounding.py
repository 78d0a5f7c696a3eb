"""A table that was rounded once is the 8-bit or 4-bit table of its bundle, bit for bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rekd_edge.modeling.rounding import pack_halves, quantize_halves, quantize_rows, restore_halves

tables = arrays.arrays(np.float32, (3, 5), elements=st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False))


@given(tables)
def test_rounding_twice_changes_nothing(table: np.ndarray) -> None:
    values, scale = quantize_rows(table)
    once = values * scale
    again, same = quantize_rows(once)
    assert np.array_equal(again * same, once)


@given(tables)
def test_no_value_moves_by_more_than_half_a_step(table: np.ndarray) -> None:
    values, scale = quantize_rows(table)
    assert values.dtype == np.int8
    assert scale.shape == (len(table), 1)
    assert np.abs(values).max() <= 127
    # 127 steps are up to 2**-15 shorter than the largest value
    assert (np.abs(values * scale.astype(np.float64) - table) <= scale * (0.5 + 127 * 2.0**-15)).all()


even = arrays.arrays(np.float32, (3, 6), elements=st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False))


@given(even)
def test_rounding_to_4_bits_twice_changes_nothing(table: np.ndarray) -> None:
    once = restore_halves(*quantize_halves(table))
    assert np.array_equal(restore_halves(*quantize_halves(once)), once)


@given(even)
def test_each_half_of_a_row_takes_its_best_scale(table: np.ndarray) -> None:
    """No worse than the scale that clips nothing, in the sum of the squares."""
    values, scale = quantize_halves(table)
    assert np.abs(values).max() <= 7
    assert scale.shape == (3, 2)
    halves = table.reshape(3, 2, 3).astype(np.float64)
    step = np.maximum(np.abs(halves).max(axis=2, keepdims=True) / 7, 1e-12)
    plain = np.square(np.round(halves / step) * step - halves).sum(axis=2)
    taken = np.square(restore_halves(values, scale).reshape(3, 2, 3) - halves).sum(axis=2)
    assert (taken <= plain * (1 + 1e-3) + step[..., 0] ** 2 * 1e-3).all()


def test_4_bits_by_hand() -> None:
    """Each half by itself; two integers share a byte, the later one sixteenfold."""
    values, scale = quantize_halves(np.array([[7.0, -7.0, 0.4, 0.5, -3.5, 0.0]], np.float32))
    assert scale.tolist() == [[1.0, 0.5]]
    assert values.tolist() == [[7, -7, 0, 1, -7, 0]]
    assert pack_halves(values).tolist() == [[7 + 16, -7 - 7 * 16, 0]]


def test_a_row_by_hand() -> None:
    values, scale = quantize_rows(np.array([[127.0, -63.5, 0.4]], np.float32))
    assert scale.tolist() == [[1.0]]
    assert values.tolist() == [[127, -64, 0]]

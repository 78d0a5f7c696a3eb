"""A table that was rounded once is the int8 table of its bundle, bit for bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rekd_edge.modeling.rounding import quantize_rows

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


def test_a_row_by_hand() -> None:
    values, scale = quantize_rows(np.array([[127.0, -63.5, 0.4]], np.float32))
    assert scale.tolist() == [[1.0]]
    assert values.tolist() == [[127, -64, 0]]

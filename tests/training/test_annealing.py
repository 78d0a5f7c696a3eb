"""Equation 10."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekd_edge.training.annealing import temperature_at


def test_temperature_starts_and_ends_as_the_paper_says() -> None:
    assert temperature_at(0, 40_000, 5.0, 0.1) == 5.0
    assert temperature_at(40_000, 40_000, 5.0, 0.1) == pytest.approx(0.1)
    assert temperature_at(20_000, 40_000, 5.0, 0.1) == pytest.approx(math.sqrt(5.0 * 0.1))


@given(st.integers(0, 2000), st.floats(0.5, 10), st.floats(0.01, 0.4))
def test_temperature_is_equation_10_held_for_100_steps(step: int, start: float, end: float) -> None:
    total = 2000
    gamma = math.log(start / end) / total
    expected = start * math.exp(-gamma * (step - step % 100))
    assert temperature_at(step, total, start, end) == pytest.approx(expected)


@pytest.mark.parametrize("refresh", [1, 10, 100])
def test_temperature_changes_only_when_it_is_refreshed(refresh: int) -> None:
    temperatures = [temperature_at(step, 500, 5.0, 0.1, refresh) for step in range(500)]
    changes = [step for step in range(1, 500) if temperatures[step] != temperatures[step - 1]]
    assert changes == list(range(refresh, 500, refresh))
    assert temperatures == sorted(temperatures, reverse=True)


def test_temperature_of_a_run_without_steps_is_the_first() -> None:
    assert temperature_at(0, 0, 5.0, 0.1) == 5.0


def test_a_run_of_one_step_goes_all_the_way() -> None:
    assert temperature_at(0, 1, 5.0, 0.1, refresh=1) == 5.0
    assert temperature_at(1, 1, 5.0, 0.1, refresh=1) == pytest.approx(0.1)

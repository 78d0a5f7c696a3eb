"""The threshold of split-conformal prediction: by hand, and its promise over many draws."""

from __future__ import annotations

import numpy as np
import pytest

from rekd_edge.errors import InputError
from rekd_edge.evaluation import conformal_promise, conformal_threshold, rows_needed


def test_threshold_by_hand() -> None:
    truth = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.4, 0.3])
    scores = np.stack([truth, 1 - truth], axis=1)
    labels = np.zeros(9, dtype=np.int64)

    # (9 + 1) · 0.8 = 8: the eighth highest; (9 + 1) · 0.75 = 7.5, so the eighth too; (9 + 1) · 0.9 = 9: the lowest
    assert conformal_threshold(scores, labels, 0.8) == 0.4
    assert conformal_threshold(scores, labels, 0.75) == 0.4
    assert conformal_threshold(scores, labels, 0.7) == 0.6
    assert conformal_threshold(scores, labels, 0.9) == 0.3


def test_promise_by_hand() -> None:
    """The rank of 0.5 among four rows is 3: labels from 0.6 on are possible."""
    scores = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.55, 0.45]])
    promise = conformal_promise(scores, np.array([0, 1, 0, 1]), 0.5)

    assert promise == {"coverage": 0.5, "threshold": 0.6, "rows": 4, "answered": 0.75, "wrong": 0.0}


def test_a_wrong_answer_is_one_possible_label_that_is_not_the_true_one() -> None:
    """From the lowest true label's .3 on: both are possible in the last row, and the second alone in the third."""
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.25, 0.75], [0.3, 0.7]])
    promise = conformal_promise(scores, np.array([0, 1, 1, 0]), 0.8)
    assert (promise["threshold"], promise["answered"], promise["wrong"]) == (0.3, 0.75, 0.0)

    promise = conformal_promise(scores, np.array([0, 1, 0, 0]), 0.5)
    assert (promise["threshold"], promise["answered"], promise["wrong"]) == (0.3, 0.75, 0.25)


@pytest.mark.parametrize(("rows", "coverage"), [(9, 0.9), (20, 0.9), (50, 0.8), (99, 0.99), (37, 0.75)])
def test_coverage_of_finite_samples(rows: int, coverage: float) -> None:
    """Over draws of rows and of the next input it is ⌈(n + 1) c⌉ / (n + 1), whatever the model's probabilities are."""
    rng = np.random.default_rng(0)
    draws = 4000
    truth = rng.beta(2, 1, size=(draws, rows + 1))
    labels = rng.integers(0, 2, size=(draws, rows + 1))
    scores = np.where(labels[..., None] == np.arange(2), truth[..., None], 1 - truth[..., None])

    held = [
        truth[i, -1] >= conformal_threshold(scores[i, :-1], labels[i, :-1], coverage)
        for i in range(draws)
    ]  # fmt: skip
    exact = np.ceil((rows + 1) * coverage - 1e-9) / (rows + 1)
    error = np.sqrt(exact * (1 - exact) / draws)

    assert exact >= coverage
    assert abs(np.mean(held) - exact) < 4 * error


@pytest.mark.parametrize(("coverage", "rows"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_rows_needed(coverage: float, rows: int) -> None:
    scores = np.full((rows, 2), 0.5)
    labels = np.zeros(rows, dtype=np.int64)
    assert rows_needed(coverage) == rows
    assert conformal_threshold(scores, labels, coverage) == 0.5

    with pytest.raises(InputError, match=rf"at least {rows} rows .* there are {rows - 1}"):
        conformal_threshold(scores[1:], labels[1:], coverage)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_impossible_coverages_are_refused(coverage: float) -> None:
    with pytest.raises(InputError, match="above 0 and below 1"):
        conformal_threshold(np.full((5, 2), 0.5), np.zeros(5, dtype=np.int64), coverage)

"""The shape of rationales and the honesty of probabilities, by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, jaccard_score

from rekd_edge.evaluation import (
    brier_score,
    expected_calibration_error,
    mask_overlap,
    probabilities,
    rationale_shape,
    spans_of,
)


def mask(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text], dtype=bool)


def test_spans_are_runs() -> None:
    assert spans_of(mask("xx.x..xxx")) == [(0, 2), (3, 4), (6, 9)]
    assert spans_of(mask("...")) == spans_of(mask("")) == []


def test_shape_by_hand() -> None:
    figures = rationale_shape([mask("xx.x"), mask("xxxx"), mask("....")])
    assert figures["ratio_sd"] == pytest.approx(np.std([3 / 4, 1, 0]))
    assert figures["spans"] == pytest.approx((2 + 1 + 0) / 3)
    assert figures["span_length"] == pytest.approx(7 / 3)
    assert figures["contiguity"] == pytest.approx((1 + 3) / (2 + 3))
    assert rationale_shape([mask("x")])["contiguity"] == 1.0
    assert rationale_shape([mask("x.x")])["contiguity"] == 0.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=10))
def test_overlap_is_scikit_learns_jaccard(pairs: list[tuple[bool, bool]]) -> None:
    one, other = (np.array(column, bool) for column in zip(*pairs, strict=True))
    expected = jaccard_score(one, other) if (one | other).any() else 1.0
    assert mask_overlap([one], [other]) == pytest.approx(expected)


def test_brier_is_twice_scikit_learns_of_two_classes() -> None:
    rng = np.random.default_rng(0)
    positive, labels = rng.random(50), rng.integers(0, 2, 50)
    scores = np.stack([1 - positive, positive], axis=1)
    assert brier_score(scores, labels) == pytest.approx(2 * brier_score_loss(labels, positive))


def test_brier_of_three_classes_by_hand() -> None:
    scores = np.array([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]])
    expected = ((0.5**2 + 0.7**2 + 0.2**2) + (0.0 + 1.0 + 1.0)) / 2
    assert brier_score(scores, np.array([1, 1])) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    # two bins: (0, .5] holds the even one, (.5, 1] holds .9 (right), .7 (wrong) and .8 (right)
    scores = np.array([[0.1, 0.9], [0.7, 0.3], [0.8, 0.2], [0.5, 0.5]])
    labels = np.array([1, 1, 0, 0])
    expected = abs((1 - 0.9) + (0 - 0.7) + (1 - 0.8)) / 4 + abs(1 - 0.5) / 4
    assert expected_calibration_error(scores, labels, bins=2) == pytest.approx(expected)
    assert expected_calibration_error(np.eye(2), np.array([0, 1])) == 0.0


def test_probabilities_do_not_overflow() -> None:
    np.testing.assert_allclose(probabilities(np.array([[1000.0, 1000.0]])), [[0.5, 0.5]])
    np.testing.assert_allclose(probabilities(np.array([0.0, np.log(3)])), [0.25, 0.75])

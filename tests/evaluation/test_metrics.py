"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from rekd_edge.evaluation import classification_metrics, rationale_agreement, rationale_ratio

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
masks = st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=6), min_size=1, max_size=6)


@given(pairs)
def test_classification_metrics_are_scikit_learns(rows: list[tuple[int, int]]) -> None:
    predicted, labels = np.array(rows).T
    metrics = classification_metrics(predicted, labels)
    f1 = precision_recall_fscore_support(labels, predicted, average=None, zero_division=0)[2]
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert metrics["macro_f1"] == pytest.approx(f1.mean())


def test_rationale_ratio_is_the_mean_over_examples() -> None:
    chosen = [np.array([True, False, False, False]), np.array([True, True]), np.array([], bool)]
    assert rationale_ratio(chosen) == pytest.approx((0.25 + 1.0 + 0.0) / 3)
    assert rationale_ratio(chosen, length=8) == pytest.approx((1 / 8 + 2 / 8 + 0.0) / 3)
    assert rationale_ratio([]) == 0.0


def test_rationale_agreement_by_hand() -> None:
    chosen = [np.array([True, True, False]), np.array([False, True, False, False])]
    truth = [np.array([True, False, False]), np.array([False, True, True, True])]
    metrics = rationale_agreement(chosen, truth)  # 3 chosen, 4 true, 2 in common
    assert metrics["rationale_precision"] == pytest.approx(2 / 3)
    assert metrics["rationale_recall"] == pytest.approx(2 / 4)
    assert metrics["rationale_f1"] == pytest.approx(2 * 2 / (3 + 4))


@given(masks)
def test_rationale_agreement_is_scikit_learns_over_all_features(rows: list[list[tuple[bool, bool]]]) -> None:
    chosen = [np.array([pair[0] for pair in row], bool) for row in rows]
    truth = [np.array([pair[1] for pair in row], bool) for row in rows]
    metrics = rationale_agreement(chosen, truth)
    flat_truth, flat_chosen = np.concatenate(truth), np.concatenate(chosen)
    if not len(flat_truth):
        assert set(metrics.values()) == {0.0}
        return
    precision, recall, f1, _ = precision_recall_fscore_support(
        flat_truth, flat_chosen, average="binary", zero_division=0
    )
    assert list(metrics.values()) == pytest.approx([precision, recall, f1])

"""Sufficiency, comprehensiveness and flips of a system whose probabilities can be written down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rekd_edge.evaluation import comprehensiveness, faithfulness, flip_rate, sufficiency, top_share

WEIGHTS = [np.array([3.0, 1.0, -1.0, 0.0]), np.array([-2.0, 0.0])]


def classify(masks: Sequence[np.ndarray]) -> np.ndarray:
    """A logistic model of the visible features' weights."""
    positive = np.array([1 / (1 + np.exp(-row[seen].sum())) for row, seen in zip(WEIGHTS, masks, strict=True)])
    return np.stack([1 - positive, positive], axis=1)


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def test_by_hand() -> None:
    whole, alone = np.array([[0.2, 0.8], [0.7, 0.3]]), np.array([[0.3, 0.7], [0.4, 0.6]])
    np.testing.assert_allclose(sufficiency(whole, alone), [0.8 - 0.7, 0.7 - 0.4])
    np.testing.assert_allclose(comprehensiveness(whole, alone), [0.1, 0.3])  # of the class of the whole input
    assert flip_rate(whole, alone) == 0.5


def test_hard_rationales_of_a_logistic_model() -> None:
    masks = [np.array([True, False, False, False]), np.array([False, True])]
    figures = faithfulness(classify, masks)
    # x: 3 + 1 − 1 = 3, rationale 3, rest 0; y: −2, rationale 0, rest −2 (of the negative class)
    assert figures["sufficiency"] == pytest.approx(((sigmoid(3) - sigmoid(3)) + (sigmoid(2) - sigmoid(0))) / 2)
    assert figures["comprehensiveness"] == pytest.approx(((sigmoid(3) - sigmoid(0)) + 0.0) / 2)
    assert figures["flip_rate"] == pytest.approx(1 / 2)  # an even rest is class 0
    assert "sufficiency_aopc" not in figures


def test_aopc_is_the_mean_over_sizes() -> None:
    masks = [np.ones(4, bool), np.ones(2, bool)]
    figures = faithfulness(classify, masks, scores=[np.abs(row) for row in WEIGHTS], shares=(0.25, 0.5))
    # of x the best quarter is 3, the best half 3 + 1; of y both are −2
    needed = [sigmoid(3) - sigmoid(0), sigmoid(3) - sigmoid(-1)], [sigmoid(2) - sigmoid(0)] * 2
    enough = [0.0, sigmoid(3) - sigmoid(4)], [0.0, 0.0]
    assert figures["comprehensiveness_aopc"] == pytest.approx(np.mean(needed))
    assert figures["sufficiency_aopc"] == pytest.approx(np.mean(enough))
    assert figures["sufficiency"] == 0.0


@pytest.mark.parametrize(
    ("share", "kept"), [(0.01, "..x.."), (0.2, "..x.."), (0.21, "x.x.."), (0.5, "xxx.."), (1, "xxxxx")]
)
def test_the_best_share_is_rounded_up_and_takes_the_first_of_a_tie(share: float, kept: str) -> None:
    scores = np.array([2.0, 2.0, 5.0, 1.0, -1.0])
    assert "".join("x" if seen else "." for seen in top_share(scores, share)) == kept

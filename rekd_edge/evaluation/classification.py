"""How good and how honest the decisions are: accuracy, macro-F1, and the calibration of probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

__all__ = ["brier_score", "classification_metrics", "expected_calibration_error", "most_frequent", "probabilities"]

BINS = 15
"""Equal-width confidence bins of the expected calibration error, as in Guo et al. (arXiv 1706.04599)."""


def classification_metrics(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> dict[str, float]:
    """Accuracy and macro-averaged F1 (scikit-learn) of label ids int [examples]."""
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
    }


def most_frequent(labels: NDArray[np.integer]) -> float:
    """Accuracy of whoever always says the most frequent of the label ids int [examples]."""
    return float(np.bincount(labels).max() / len(labels))


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the last axis of logits [..., classes]."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def expected_calibration_error(scores: NDArray[np.floating], labels: NDArray[np.integer], bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy over confidence bins, weighted by their examples.

    Equation 3 of Guo et al. (https://arxiv.org/abs/1706.04599); the bins are (0, 1/bins], …, (1 − 1/bins, 1].

    Args:
        scores: probabilities [examples, classes].
        labels: true label ids int [examples].
        bins: how many bins of equal width.
    """
    confidence, correct = scores.max(axis=1), scores.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)

    gaps = np.bincount(place, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def brier_score(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Mean over the examples of the squared distance between probabilities [examples, classes] and the one-hot label.

    Brier's own sum over all classes (1950): from 0 to 2, and for two classes twice scikit-learn's binary form.
    """
    one_hot = np.eye(scores.shape[1])[labels]
    return float(((scores - one_hot) ** 2).sum(axis=1).mean())

"""Figures on predictions and masks, from arrays alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import f1_score

__all__ = ["classification_metrics", "rationale_agreement", "rationale_ratio"]

Mask = np.ndarray
"""bool [features] of one example: features only, no padding, no special tokens."""


def classification_metrics(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy and macro-averaged F1 (scikit-learn) of label ids int [examples]."""
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
    }


def rationale_ratio(masks: Sequence[Mask], length: int | None = None) -> float:
    """Mean over the examples of |M| / L, 0 where L = 0; `length` is L where it is the same for all."""
    ratios = [mask.sum() / (length or len(mask)) if len(mask) else 0.0 for mask in masks]
    return float(np.mean(ratios)) if ratios else 0.0


def rationale_agreement(masks: Sequence[Mask], truth: Sequence[Mask]) -> dict[str, float]:
    """Precision, recall and F1 of selected features against the true ones, counted over all examples."""
    chosen, true = np.concatenate(masks), np.concatenate(truth)
    hits = float((chosen & true).sum())
    precision = hits / max(float(chosen.sum()), 1.0)
    recall = hits / max(float(true.sum()), 1.0)
    f1 = 2 * precision * recall / max(precision + recall, 1e-12)
    return {"rationale_precision": precision, "rationale_recall": recall, "rationale_f1": f1}

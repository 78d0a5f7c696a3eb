"""Agreement with people: do the selected features coincide with those that annotators marked?

The conventions are those of ERASER (DeYoung et al. 2020, https://arxiv.org/abs/1911.03429) and of its scorer
(`rationale_benchmark/metrics.py`); `docs/evaluation.md` spells them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import auc, precision_recall_curve

from rekd_edge.evaluation.masks import Mask, spans_of

__all__ = ["iou_f1", "rationale_agreement", "rationale_auprc", "token_agreement"]

Span = tuple[int, int]
"""(start, end) in features, the end excluded."""


def rationale_agreement(masks: Sequence[Mask], truth: Sequence[Mask]) -> dict[str, float]:
    """Precision, recall and F1 of selected features against the true ones, counted over all examples."""
    chosen, true = np.concatenate(masks), np.concatenate(truth)
    precision, recall, f1 = _prf(int((chosen & true).sum()), int(chosen.sum()), int(true.sum()))
    return {"rationale_precision": precision, "rationale_recall": recall, "rationale_f1": f1}


def token_agreement(masks: Sequence[Mask], truth: Sequence[Mask]) -> dict[str, float]:
    """Token precision, recall and F1: micro over all tokens, and macro over documents.

    The macro F1 is the mean of the documents' F1 (`score_hard_rationale_predictions`, `instance_macro`), and a document
    in which nothing is selected, or nothing marked, counts 0.
    """
    micro = rationale_agreement(masks, truth)
    documents = [
        _prf(int((mask & true).sum()), int(mask.sum()), int(true.sum()))
        for mask, true in zip(masks, truth, strict=True)
    ]
    precision, recall, f1 = np.mean(documents, axis=0)

    return {
        "token_precision": micro["rationale_precision"],
        "token_recall": micro["rationale_recall"],
        "token_f1": micro["rationale_f1"],
        "token_precision_macro": float(precision),
        "token_recall_macro": float(recall),
        "token_f1_macro": float(f1),
    }


def iou_f1(masks: Sequence[Mask], truth: Sequence[Mask] | Sequence[Sequence[Span]], threshold: float = 0.5) -> float:
    """F1 of spans that overlap a marked one by at least `threshold` of their union (`partial_match_score`, macro).

    A predicted span is a hit if its best intersection over union with a marked span reaches the threshold. Precision is
    the mean over documents of hits / predicted spans, recall that of hits / marked spans, over documents that have any;
    the F1 is that of the two means.

    Args:
        masks: what a system selects; its spans are the runs of selected features.
        truth: what people marked, as masks or as spans, which may touch or overlap.
        threshold: least intersection over union of a hit.
    """
    precisions, recalls = [], []
    for mask, marked in zip(masks, truth, strict=True):
        predicted = spans_of(mask)
        true = spans_of(marked) if isinstance(marked, np.ndarray) else list(dict.fromkeys(marked))
        hits = sum(max((_iou(span, other) for other in true), default=0.0) >= threshold for span in predicted)

        if predicted:
            precisions.append(hits / len(predicted))
        if true:
            recalls.append(hits / len(true))

    precision = float(np.mean(precisions)) if precisions else 0.0
    recall = float(np.mean(recalls)) if recalls else 0.0
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def rationale_auprc(scores: Sequence[NDArray[Any]], truth: Sequence[Mask]) -> float:
    """Mean over documents of the area under the precision-recall curve of their scores [features] (scikit-learn,
    trapezoids as in ERASER's `_auprc`). Documents in which nothing is marked have no such curve and are left out."""
    areas = []
    for row, true in zip(scores, truth, strict=True):
        if true.any():
            precision, recall, _ = precision_recall_curve(true, row)
            areas.append(auc(recall, precision))
    return float(np.mean(areas)) if areas else 0.0


def _prf(hits: int, chosen: int, true: int) -> tuple[float, float, float]:
    """Precision, recall and F1, each 0 where it would divide by 0."""
    precision, recall = hits / max(chosen, 1), hits / max(true, 1)
    return precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0


def _iou(one: Span, other: Span) -> float:
    overlap = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    union = (one[1] - one[0]) + (other[1] - other[0]) - overlap
    return overlap / union if union else 0.0

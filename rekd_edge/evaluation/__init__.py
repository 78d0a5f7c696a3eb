"""Measures of predictions and rationales, from arrays alone, so that any system's masks or scores can be judged."""

from rekd_edge.evaluation.agreement import iou_f1, rationale_agreement, rationale_auprc, token_agreement
from rekd_edge.evaluation.classification import (
    brier_score,
    classification_metrics,
    expected_calibration_error,
    most_frequent,
    probabilities,
)
from rekd_edge.evaluation.conformal import conformal_promise, conformal_threshold, rows_needed
from rekd_edge.evaluation.faithfulness import comprehensiveness, faithfulness, flip_rate, sufficiency
from rekd_edge.evaluation.masks import mask_overlap, rationale_ratio, rationale_shape, spans_of, top_share
from rekd_edge.evaluation.stability import overlap_across, pairwise_overlap

__all__ = [
    "brier_score",
    "classification_metrics",
    "comprehensiveness",
    "conformal_promise",
    "conformal_threshold",
    "expected_calibration_error",
    "faithfulness",
    "flip_rate",
    "iou_f1",
    "mask_overlap",
    "most_frequent",
    "overlap_across",
    "pairwise_overlap",
    "probabilities",
    "rationale_agreement",
    "rationale_auprc",
    "rationale_ratio",
    "rationale_shape",
    "rows_needed",
    "spans_of",
    "sufficiency",
    "token_agreement",
    "top_share",
]

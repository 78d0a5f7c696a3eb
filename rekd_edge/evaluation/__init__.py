"""Metrics on predictions and masks, from arrays alone."""

from rekd_edge.evaluation.metrics import classification_metrics, rationale_agreement, rationale_ratio

__all__ = ["classification_metrics", "rationale_agreement", "rationale_ratio"]

"""Equations 3 to 11 of arXiv 2601.22531, each a function of tensors; losses are means over the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "REFERENCE_FEATURES",
    "prediction_distillation_loss",
    "rationale_distillation_loss",
    "re_loss",
    "rekd_loss",
    "selection_loss",
    "task_loss",
]

REFERENCE_FEATURES = {"text": 256, "image": 196}
"""L_ref: the feature counts at which the paper tuned λ_select."""


def selection_loss(
    selected: Tensor, features: Tensor, target_ratio: float, reference: int | None, reduction: str = "per_sample"
) -> Tensor:
    """L_select of equation 3.

    Args:
        selected: ΣM of each example, [batch].
        features: L of each example, [batch].
        target_ratio: p_target.
        reference: L_ref of the normalised form, (ΣM/L - p)² · L_ref²; None for the paper's raw (ΣM - L·p)².
        reduction: `per_sample` squares each example's difference (the paper), `batch_mean` the mean difference
            (the published code).

    Returns:
        A scalar.
    """
    difference = selected - features * target_ratio
    if reference is not None:
        difference = difference / features.clamp(min=1) * reference
    return difference.mean().square() if reduction == "batch_mean" else difference.square().mean()


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """L_task of equation 5: cross-entropy of logits [batch, classes] and labels int64 [batch]."""
    return functional.cross_entropy(logits.float(), labels)


def re_loss(task: Tensor, selection: Tensor, lambda_select: float) -> Tensor:
    """L_RE of equation 6."""
    return task + lambda_select * selection


def rationale_distillation_loss(teacher_log_selection: Tensor, log_selection: Tensor, counted: Tensor) -> Tensor:
    """L_KD^R of equation 7: the KL divergence of log S^T from log S^S, [batch, features, 2], summed over features.

    Args:
        teacher_log_selection: log S^T.
        log_selection: log S^S.
        counted: bool [batch, features], the features that count.
    """
    divergence = teacher_log_selection.exp() * (teacher_log_selection - log_selection)
    return (divergence.sum(dim=-1) * counted).sum(dim=-1).mean()


def prediction_distillation_loss(teacher_logits: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """L_KD^Y of equation 8: KL of the softened class distributions, logits [batch, classes]; without the factor τ²."""
    return functional.kl_div(
        torch.log_softmax(logits.float() / temperature, dim=-1),
        torch.log_softmax(teacher_logits.float() / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def rekd_loss(
    re: Tensor, kd_rationale: Tensor, kd_prediction: Tensor, temperature: float, alpha: float, lambda_r: float
) -> Tensor:
    """L_REKD of equation 11, with L_KD = λ_R L_KD^R + τ² L_KD^Y of equation 9."""
    distillation = lambda_r * kd_rationale + temperature**2 * kd_prediction
    return alpha * re + (1 - alpha) * distillation

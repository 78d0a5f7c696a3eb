"""Equations 3 to 11 of arXiv 2601.22531, each a function of tensors; losses are means over the batch.

Of several processes each has a part of the batch. The mean of their losses is that of the whole batch where a loss is a
mean over examples; where it is not, sums are taken over the processes (`summed`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rekd_edge.training.processes import summed

__all__ = [
    "REFERENCE_FEATURES",
    "at_least_float32",
    "batch_mean",
    "batch_share",
    "contiguity_loss",
    "prediction_distillation_loss",
    "rationale_distillation_loss",
    "re_loss",
    "rekd_loss",
    "selection_loss",
    "task_loss",
]

REFERENCE_FEATURES = {"text": 256, "image": 196}
"""L_ref: the feature counts at which the paper tuned λ_select."""


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def batch_mean(values: Tensor) -> Tensor:
    """The mean of one number an example, [batch], over the whole batch of all processes: what a loss may square."""
    return batch_share(values.sum(), torch.ones_like(values).sum())


def batch_share(part: Tensor, whole: Tensor) -> Tensor:
    """Σ part / Σ whole over all processes, in the shape of `part`; `whole` is a scalar, and at least 1 is taken."""
    sums = summed(torch.cat([part.flatten(), whole.to(part.dtype).flatten()]))
    return sums[:-1].reshape(part.shape) / sums[-1].clamp(min=1)


def selection_loss(
    selected: Tensor,
    features: Tensor,
    target_ratio: float | Tensor,
    reference: int | None,
    reduction: str = "per_sample",
) -> Tensor:
    """L_select of equation 3.

    Args:
        selected: ΣM of each example, [batch].
        features: L of each example, [batch].
        target_ratio: p_target, one for all or one for each example, [batch].
        reference: L_ref of the normalised form, (ΣM/L - p)² · L_ref²; None for the paper's raw (ΣM - L·p)².
        reduction: `per_sample` squares each example's difference (the paper), `batch_mean` the mean difference
            (the published code).

    Returns:
        A scalar.
    """
    difference = selected - features * target_ratio
    if reference is not None:
        difference = difference / features.clamp(min=1) * reference
    return batch_mean(difference).square() if reduction == "batch_mean" else difference.square().mean()


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """L_task of equation 5: cross-entropy of logits [batch, classes] and labels int64 [batch]."""
    return functional.cross_entropy(at_least_float32(logits), labels)


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
    divergence = functional.kl_div(log_selection, teacher_log_selection, reduction="none", log_target=True)
    return (divergence.sum(dim=-1) * counted).sum(dim=-1).mean()


def prediction_distillation_loss(teacher_log_probabilities: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """L_KD^Y of equation 8: KL of the softened class distributions; without the factor τ².

    Args:
        teacher_log_probabilities: log softmax(Q^T/τ), [batch, classes].
        logits: Q^S, [batch, classes].
        temperature: τ.
    """
    ours = torch.log_softmax(at_least_float32(logits) / temperature, dim=-1)
    return functional.kl_div(ours, teacher_log_probabilities, reduction="batchmean", log_target=True)


def contiguity_loss(mask: Tensor, feature: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """Total variation: the mean of |m_t - m_(t-1)| over neighbouring features (λ_c's term of PLMR, arXiv 2501.03182).

    Args:
        mask: floats [batch, features].
        feature: bool [batch, features]; pairs with a position that is none don't count.
        grid: rows and columns of patches, whose neighbours are those to the right and below; None for text.
    """
    axes: tuple[int, ...] = (1,)
    values, real = mask, feature

    if grid is not None:
        values, real, axes = mask.unflatten(1, grid), feature.unflatten(1, grid), (1, 2)

    changes = count = mask.new_zeros(())
    for axis in axes:
        length = values.shape[axis] - 1
        both = real.narrow(axis, 0, length) & real.narrow(axis, 1, length)
        changes = changes + (values.diff(dim=axis).abs() * both).sum()
        count = count + both.sum()

    return batch_share(changes, count)


def rekd_loss(
    re: Tensor, kd_rationale: Tensor, kd_prediction: Tensor, temperature: float, alpha: float, lambda_r: float
) -> Tensor:
    """L_REKD of equation 11, with L_KD = λ_R L_KD^R + τ² L_KD^Y of equation 9."""
    distillation = lambda_r * kd_rationale + temperature**2 * kd_prediction
    return alpha * re + (1 - alpha) * distillation

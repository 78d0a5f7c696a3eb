"""The selection layer: straight-through Gumbel-Softmax in training, the deterministic rule everywhere else."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "NEVER_SELECTED",
    "deterministic_mask",
    "gumbel_log_softmax",
    "gumbel_noise",
    "random_mask",
    "selection_margin",
    "straight_through_mask",
]

NEVER_SELECTED = torch.finfo(torch.float32).min
"""The margin of positions that are not features: padding, class and separator tokens."""


def gumbel_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw G = -ln(-ln U), U ~ Uniform(0, 1), float32 in the shape of `like` (arXiv 2601.22531, note 1)."""
    uniform = torch.rand(like.shape, device=like.device, dtype=torch.float32, generator=generator)
    tiny = torch.finfo(torch.float32).tiny
    exponential = -torch.log(uniform.clamp(min=tiny))
    return -torch.log(exponential.clamp(min=tiny))


def gumbel_log_softmax(selection_logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """log S of equation 1 for selection logits Z and noise G, both [batch, features, 2]."""
    return torch.log_softmax((selection_logits.float() + noise) / temperature, dim=-1)


def straight_through_mask(log_selection: Tensor, feature: Tensor) -> Tensor:
    """M of equation 2 as floats [batch, features]; the gradient is that of S (dM/dS = 1). Non-features are 0.

    Args:
        log_selection: log S, [batch, features, 2].
        feature: bool [batch, features].
    """
    soft = log_selection[..., 1].exp()
    hard = (log_selection[..., 1] > log_selection[..., 0]).float()
    # soft - soft.detach() is an exact zero, so the forward value is exactly 0 or 1
    return (hard + (soft - soft.detach())) * feature


def selection_margin(selection_logits: Tensor, feature: Tensor, bias: float) -> Tensor:
    """z_1 - z_0 + bias [batch, features] in float32; `NEVER_SELECTED` where a position is not a feature."""
    logits = selection_logits.float()
    margin = logits[..., 1] - logits[..., 0] + bias
    return margin.masked_fill(~feature, NEVER_SELECTED)


def deterministic_mask(margin: Tensor, feature: Tensor) -> Tensor:
    """Select where the margin is above 0; where nothing is, the first feature with the largest margin.

    Args:
        margin: float32 [batch, features].
        feature: bool [batch, features].

    Returns:
        bool [batch, features]; all false in a row without features.
    """
    selected = margin > 0
    best = margin == margin.amax(dim=-1, keepdim=True)
    first_best = best & (best.long().cumsum(dim=-1) == 1)
    nothing = ~selected.any(dim=-1, keepdim=True)
    return (selected | (nothing & first_best)) & feature


def random_mask(feature: Tensor, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Select round(ratio · L) features of each row (at least one) uniformly at random: the control of every method.

    Args:
        feature: bool [batch, features].
        ratio: share of the features, 0 to 1.

    Returns:
        bool [batch, features].
    """
    score = torch.rand(feature.shape, device=feature.device, generator=generator).masked_fill(~feature, -1.0)
    rank = score.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    count = (feature.sum(dim=-1, keepdim=True) * ratio).round().clamp(min=1)
    return (rank < count) & feature

"""What keeps the predictor from seeing unselected features: attention biases in training, gathering on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["HIDDEN", "LEAK", "MOST_A_FEATURE_CHANGES", "drop_bias", "gather_visible", "padding_bias"]

HIDDEN = -1e30
"""Attention score of padding: finite in bfloat16 too, so that a row of padding alone gives finite logits."""
LEAK = 1e-20
"""Attention weight of a dropped feature: vanishes in float32, but its logarithm has a gradient."""
LONGEST = 2**24
"""More features than any input has."""
MOST_A_FEATURE_CHANGES = 1.0
"""Bound on the gradient of a dropped or kept feature, in the loss of its example. At M_j = 0 it is exp(s_ij) / Σ, which
pretrained attention makes as large as 10^6 where a head waits for one word, though that word could change a
cross-entropy by about 1: without a bound, clipping the gradient's norm leaves nothing of all others."""


def padding_bias(attention_mask: Tensor | None) -> Tensor | None:
    """Additive attention bias [batch, 1, 1, sequence]: 0 on tokens, `HIDDEN` on padding; None for images."""
    if attention_mask is None:
        return None
    return (1.0 - attention_mask[:, None, None, :].float()) * HIDDEN


class _Bounded(torch.autograd.Function):
    """The identity on a mask, with a bounded gradient."""

    @staticmethod
    def forward(ctx: Any, visible: Tensor, loss_share: float | Tensor) -> Tensor:
        """[batch, positions]."""
        ctx.loss_share = loss_share
        return visible.view_as(visible)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """[batch, positions]."""
        bound = MOST_A_FEATURE_CHANGES / len(gradient) * ctx.loss_share
        return gradient.clamp(-bound, bound), None


def drop_bias(visible: Tensor, bias: Tensor | None, loss_share: float | Tensor = 1.0) -> Tensor:
    """Attention bias log(M) that excludes invisible positions: A_ij ∝ exp(s_ij) M_j.

    This is equation 11 of DynamicViT (arXiv 2106.02034). `LEAK` keeps the derivative 1 / M_j finite, so that the mask
    of a dropped feature still gets the gradient exp(s_ij) / Σ, up to `MOST_A_FEATURE_CHANGES` of its example's loss.

    Args:
        visible: floats [batch, positions].
        bias: what hides padding, [batch, 1, 1, positions], or None.
        loss_share: see `RationaleModel.count_loss_as`.
    """
    dropped = torch.log(_Bounded.apply(visible, loss_share) + LEAK)[:, None, None, :]
    return dropped if bias is None else dropped + bias


def gather_visible(features: Tensor, visible: Tensor, prefix: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keep only the visible features, in their order, padded to the longest row of the batch.

    Args:
        features: token ids [batch, features] or patches [batch, features, pixels].
        visible: bool [batch, features].
        prefix: number of positions before the first feature.

    Returns:
        The kept features, their places int64 [batch, kept], and an attention bias [batch, 1, 1, prefix + kept].
    """
    kept: Any = visible.sum(dim=1).max().clamp(min=1).item()
    if torch.compiler.is_exporting():  # torch cannot know a size that the data decides; attention asks whether it is 1
        torch._check(kept > 1)
        torch._check(kept <= visible.shape[1])

    # visible places first, each group in its order: a rank above 0 for those, no two alike
    rank = visible * LONGEST - torch.arange(visible.shape[1], device=visible.device)
    rank, order = rank.topk(kept, dim=1)
    index = order if features.dim() == 2 else order[..., None].expand(-1, -1, features.shape[2])
    filler = rank <= 0
    if prefix:
        filler = nn.functional.pad(filler, (prefix, 0))  # [batch, prefix + kept]

    return features.gather(1, index), order, filler[:, None, None, :].float() * HIDDEN

"""The selection layer: straight-through Gumbel-Softmax in training, the deterministic rule everywhere else.

    Z = generator(X)                        # [batch, features, 2]  selection logits
    log S = gumbel_log_softmax(Z, G, τ)     # [batch, features, 2]  training only
    M = straight_through_mask(log S, ...)   # [batch, features]     training only, floats
    margin = selection_margin(Z, ..., bias) # [batch, features]     z_1 - z_0 + bias
    M = deterministic_mask(margin, ...)     # [batch, features]     bool

Features are selected one by one (`unit` is None), or in units, words whose pieces share one decision. `unit` holds for
each feature the position of the first feature of its unit, int64 [batch, features].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rekd_edge.modeling.constants import constant

__all__ = [
    "NEVER_SELECTED",
    "Limits",
    "at_units",
    "deterministic_mask",
    "gumbel_log_softmax",
    "gumbel_noise",
    "mean_over_units",
    "random_mask",
    "selection_margin",
    "straight_through_mask",
    "word_units",
]

NEVER_SELECTED = torch.finfo(torch.float32).min
"""The margin of positions that are not features: padding, class and separator tokens."""


class Limits(NamedTuple):
    """How many features a mask may hold. A word that would exceed the maximum is left out as a whole, unless the
    minimum cannot be reached without it."""

    minimum: int = 1
    maximum: int | None = None


def gumbel_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw G = -ln(-ln U), U ~ Uniform(0, 1), float32 in the shape of `like` (arXiv 2601.22531, note 1)."""
    uniform = torch.rand(like.shape, device=like.device, dtype=torch.float32, generator=generator)
    tiny = torch.finfo(torch.float32).tiny
    exponential = -torch.log(uniform.clamp(min=tiny))
    return -torch.log(exponential.clamp(min=tiny))


def gumbel_log_softmax(selection_logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """log S of equation 1 for selection logits Z and noise G, both [batch, features, 2]."""
    return torch.log_softmax((selection_logits.float() + noise) / temperature, dim=-1)


def straight_through_mask(
    log_selection: Tensor, feature: Tensor, unit: Tensor | None = None, limits: Limits | None = None
) -> Tensor:
    """M of equation 2 as floats [batch, features]; the gradient is that of S (dM/dS = 1). Non-features are 0.

    Args:
        log_selection: log S, [batch, features, 2].
        feature: bool [batch, features].
        unit: which features are selected together, [batch, features].
        limits: bounds on the number of features per row; None allows any number, including none.
    """
    soft = log_selection[..., 1].exp()
    margin = log_selection[..., 1] - log_selection[..., 0]
    hard = margin > 0

    if limits is not None:
        hard = _limited(hard, margin.masked_fill(~feature, NEVER_SELECTED), feature, unit, limits)

    # soft - soft.detach() is an exact zero, so the forward value is exactly 0 or 1
    return (hard.float() + (soft - soft.detach())) * feature


def selection_margin(selection_logits: Tensor, feature: Tensor, bias: float) -> Tensor:
    """z_1 - z_0 + bias [batch, features] in float32; `NEVER_SELECTED` where a position is not a feature."""
    # a product with ±1 and a sum are exact, and two nodes of a graph where the difference of two slices is four
    signs = constant((-1.0, 1.0), selection_logits.device)
    margin = (selection_logits.float() * signs).sum(dim=-1) + bias
    return torch.where(feature, margin, NEVER_SELECTED)


def deterministic_mask(
    margin: Tensor, feature: Tensor, unit: Tensor | None = None, limits: Limits | None = None
) -> Tensor:
    """Select every feature with a margin above 0; if there is none, the first unit with the largest margin.

    Args:
        margin: float32 [batch, features], the same on all features of a unit.
        feature: bool [batch, features].
        unit: which features are selected together, [batch, features].
        limits: bounds on the number of features per row; those with the largest margins are kept.

    Returns:
        bool [batch, features]; all false in a row without features.
    """
    selected = margin > 0
    if limits is not None and limits != Limits():
        return _limited(selected, margin, feature, unit, limits) & feature

    # where anything is selected, so is the feature with the largest margin
    first = margin.argmax(dim=-1, keepdim=True)  # the first one on a tie
    if unit is None:
        largest = torch.arange(margin.shape[1], device=margin.device) == first
    else:
        largest = unit == unit.gather(1, first)

    return (selected | largest) & feature


def _limited(selected: Tensor, margin: Tensor, feature: Tensor, unit: Tensor | None, limits: Limits) -> Tensor:
    """Add the best units until there are `minimum` features, and remove the worst ones beyond `maximum`."""
    if unit is None:
        unit = torch.arange(margin.shape[1], device=margin.device)[None]

    theirs, ours = margin[:, None, :], margin[:, :, None]
    earlier = unit[:, None, :] < unit[:, :, None]
    real = feature[:, None, :]
    better = (((theirs > ours) | ((theirs == ours) & earlier)) & real).sum(dim=-1)  # [batch, features]

    if limits.maximum is not None:
        size = ((unit[:, None, :] == unit[:, :, None]) & real).sum(dim=-1)
        selected = selected & (better + size <= limits.maximum)

    return selected | (better < limits.minimum)


def word_units(starts: Tensor, feature: Tensor) -> Tensor:
    """The unit of each position, int64 [batch, features], for selecting whole words.

    Args:
        starts: bool [batch, features], true on the first piece of each word.
        feature: bool [batch, features]; every other position is a unit of its own, and no word crosses it.
    """
    place = torch.arange(feature.shape[1], device=feature.device)
    before = torch.cat([torch.zeros_like(feature[:, :1]), feature[:, :-1]], dim=1)
    first = starts | ~feature | ~before  # [batch, features]
    reached = first[:, None, :] & (place[None, :] <= place[:, None])  # [batch, features, firsts up to it]
    return (reached.float() * place).amax(dim=-1).long()


def mean_over_units(values: Tensor, unit: Tensor | None) -> Tensor:
    """The mean over each unit, bit-identical on all its features; `values` is [batch, features, width]."""
    if unit is None:
        return values
    together = (unit[:, :, None] == unit[:, None, :]).to(values.dtype)
    mean = together @ values / together.sum(dim=-1, keepdim=True)
    return at_units(mean, unit)


def at_units(values: Tensor, unit: Tensor | None) -> Tensor:
    """The value at the first feature of each unit, on all its features; `values` is [batch, features, width]."""
    return values if unit is None else values.gather(1, unit[..., None].expand(-1, -1, values.shape[-1]))


def random_mask(
    feature: Tensor,
    ratio: float,
    generator: torch.Generator | None = None,
    score: Tensor | None = None,
    rounding: Tensor | None = None,
) -> Tensor:
    """Select ratio · L features of each row in the mean, uniformly at random: the mask of a control.

    Where ratio · L is no whole number, the row gets the one below or the one above at random, so that the expected
    count is exact (15 % of 36 patches is 5.4). A row with features gets at least one.

    Args:
        feature: bool [batch, features].
        ratio: share of the features, 0 to 1.
        generator: what is not given is drawn from.
        score: uniform in [0, 1), [batch, features]: the largest are selected; drawn where None.
        rounding: uniform in [0, 1), [batch]: below the fraction of ratio · L rounds up; drawn where None.

    Returns:
        bool [batch, features].
    """
    if score is None:
        score = torch.rand(feature.shape, device=feature.device, generator=generator)
    if rounding is None:
        rounding = torch.rand(len(feature), device=feature.device, generator=generator)

    exact = feature.sum(dim=-1) * ratio  # [batch]
    whole = exact.floor()
    count = (whole + (rounding < exact - whole)).clamp(min=1)

    score = score.masked_fill(~feature, -1.0)
    rank = score.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)

    return (rank < count[:, None]) & feature

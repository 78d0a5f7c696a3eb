"""One temperature for Gumbel-Softmax and distillation (equation 10 of arXiv 2601.22531)."""

from __future__ import annotations

import math

__all__ = ["temperature_at"]


def temperature_at(step: int, total_steps: int, start: float, end: float, refresh: int = 100) -> float:
    """τ_k = τ_0 · exp(-γk), γ = ln(τ_0 / τ_K) / K, held for `refresh` steps at a time.

    Args:
        step: optimisation steps taken so far, k.
        total_steps: K.
        start: τ_0.
        end: τ_K.
        refresh: how many steps a temperature is kept.
    """
    k = min(step // refresh * refresh, total_steps)
    return start * math.exp(-k * math.log(start / end) / max(total_steps, 1))

"""Numbers that every step reads on the device, copied there once: a copy makes the host wait for the device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["constant"]


def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Float32 [values]; the same tensor each time, so it must not be written to."""
    if torch.compiler.is_exporting():  # what is made within a trace must not outlive it
        return torch.tensor(values, dtype=torch.float32, device=device)
    return _kept(values, device)


@lru_cache
def _kept(values: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.no_grad():
        return torch.tensor(values, dtype=torch.float32, device=device)

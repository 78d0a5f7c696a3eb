"""Embedding tables as int8 with one scale per row, so that the run and its int8 bundle read the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rekd_edge.modeling.model import RationaleModel

__all__ = ["quantize_rows", "round_embeddings"]

LARGEST = 127
SMALLEST = 1e-12
"""Of a scale: that of an all-zero row."""


def quantize_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """An embedding table [rows, hidden] as int8 and one scale per row, [rows, 1].

    Scales are cut to 16 significant bits. A 7-bit integer times such a scale is exact in float32, so a table that was
    rounded once gives the same integers and scales again.
    """
    exact = np.maximum(np.abs(table).max(axis=1, keepdims=True) / LARGEST, SMALLEST).astype(np.float32)
    scale = (exact.view(np.uint32) & np.uint32(0xFFFFFF00)).view(np.float32)
    return np.clip(np.round(table / scale), -LARGEST, LARGEST).astype(np.int8), scale


def round_embeddings(model: RationaleModel) -> None:
    """Replace the predictor's embedding table by what an int8 bundle holds of it (in place)."""
    weight = model.predictor.encoder.embedding.weight
    values, scale = quantize_rows(weight.detach().float().cpu().numpy())
    with torch.no_grad():
        weight.copy_(torch.from_numpy(values * scale))

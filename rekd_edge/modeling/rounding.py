"""Embedding tables in 8 or 4 bits, so that the run and its int8 bundle read the same numbers.

8 bits: integers from -127 to 127 with one scale per row. 4 bits: integers from -7 to 7 with one scale for each half of
a row. Scales are cut to 16 significant bits: the product of such a scale and an integer is exact in float32, so a table
that was rounded once gives the same integers and scales again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rekd_edge.modeling.model import RationaleModel

__all__ = ["pack_halves", "quantize_halves", "quantize_rows", "restore_halves", "round_embeddings"]

LARGEST = 127
LARGEST_OF_4_BITS = 7
CLIPPED = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Shares of the largest magnitude that 4 bits may reach; beyond it values are clipped."""
SMALLEST = 1e-12
"""Of a scale: that of an all-zero row."""


def quantize_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """An embedding table [rows, hidden] as int8 and one scale per row, [rows, 1]."""
    scale = _scale(np.abs(table).max(axis=1, keepdims=True) / LARGEST)
    return np.clip(np.round(table / scale), -LARGEST, LARGEST).astype(np.int8), scale


def quantize_halves(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """An embedding table [rows, hidden] as integers from -7 to 7 and one scale per half of a row, [rows, 2].

    Of a few scales each half takes the one with the smallest mean squared error; `hidden` is even.
    """
    halves = table.reshape(len(table), 2, -1)
    largest = np.abs(halves).max(axis=2)  # [rows, 2]
    scale = values = error = None

    for share in CLIPPED:
        tried = _scale(np.float32(share) * largest / LARGEST_OF_4_BITS)
        integers = np.clip(np.round(halves / tried[..., None]), -LARGEST_OF_4_BITS, LARGEST_OF_4_BITS)
        missed = np.square(integers * tried[..., None] - halves).sum(axis=2)

        if scale is None or values is None or error is None:
            scale, values, error = tried, integers.astype(np.int8), missed
            continue

        better = missed < error
        scale, error = np.where(better, tried, scale), np.where(better, missed, error)
        values = np.where(better[..., None], integers.astype(np.int8), values)

    assert scale is not None
    assert values is not None
    return values.reshape(table.shape), scale


def restore_halves(values: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The table [rows, hidden] that `quantize_halves` took apart, rounded."""
    halves = values.reshape(len(values), 2, -1) * scale[..., None]
    return halves.reshape(values.shape)


def pack_halves(values: NDArray[np.int8]) -> NDArray[np.int8]:
    """Integers [rows, hidden] from -7 to 7 as bytes [rows, hidden / 2]: the first half of a row plus 16 times the
    second."""
    low, high = np.split(values, 2, axis=1)
    return low + np.int8(16) * high


def round_embeddings(model: RationaleModel, bits: int = 8) -> None:
    """Replace the predictor's embedding table by what an int8 bundle holds of it (in place), in 8 or 4 bits."""
    weight = model.predictor.encoder.embedding.weight
    table = weight.detach().float().cpu().numpy()

    if bits == 8:
        values, scale = quantize_rows(table)
        rounded = values * scale
    else:
        rounded = restore_halves(*quantize_halves(table))

    with torch.no_grad():
        weight.copy_(torch.from_numpy(rounded))


def _scale(exact: NDArray[np.float32]) -> NDArray[np.float32]:
    """With 16 significant bits."""
    return (np.maximum(exact, SMALLEST).astype(np.float32).view(np.uint32) & np.uint32(0xFFFFFF00)).view(np.float32)

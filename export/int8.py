"""Int8 numbers: which integers stand for weights, embedding tables and calibrated activations. Arrays alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid", "quantize_rows", "quantize_weight", "static_grid"]

FloatArray = NDArray[np.float32]
Int8Array = NDArray[np.int8]

SMALLEST = 1e-12  # of a scale: that of an all-zero channel
LARGEST_PAIR = 127.5  # |w0 + w1| of neighbours along K: 255 (|w0 + w1| + rounding) < 2**15
SMOOTHING = 0.8  # share of the channels' spread that the weights take over; the optimum is flat


@dataclass(frozen=True)
class Grid:
    """An int8 grid a channel: value = shift + step * integer, both [channels]."""

    step: FloatArray
    shift: FloatArray


def quantize_weight(weight: FloatArray) -> tuple[Int8Array, FloatArray]:
    """A weight `[in, out]` as int8 and one scale an output channel, `[out]`.

    x86 without VNNI adds the products of two neighbours along `in` in 16 bits (`vpmaddubsw`). The scales are large
    enough that no pair saturates, |w0 + w1| <= 128, so that every CPU computes the same integers; elsewhere it costs
    nothing that could be measured.
    """
    even = np.pad(weight, ((0, weight.shape[0] % 2), (0, 0)))
    pairs = np.abs(even[0::2] + even[1::2]).max(axis=0)
    scale = np.maximum(np.abs(weight).max(axis=0) / 127, pairs / LARGEST_PAIR)
    scale = np.maximum(scale, SMALLEST).astype(np.float32)
    return np.clip(np.round(weight / scale), -127, 127).astype(np.int8), scale


def quantize_rows(table: FloatArray) -> tuple[Int8Array, FloatArray]:
    """An embedding table `[rows, hidden]` as int8 and one scale a row, `[rows, 1]`."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, SMALLEST).astype(np.float32)
    return np.round(table / scale).astype(np.int8), scale


def static_grid(low: FloatArray, high: FloatArray, weight: FloatArray) -> Grid:
    """The grid of activations seen between `low` and `high` `[channels]` that enter `weight` `[channels, out]`.

    The shift is each channel's middle (Outlier Suppression+, arXiv 2304.09145); the steps split the channels' spread
    between activation and weight (SmoothQuant, arXiv 2211.10438, equation 4).
    """
    reach = np.maximum((high - low) / 2, 1e-5)
    smooth = reach**SMOOTHING / np.maximum(np.abs(weight).max(axis=1), 1e-5) ** (1 - SMOOTHING)
    smooth = np.maximum(smooth, np.median(smooth) * 1e-3)
    step = smooth * (reach / smooth).max() / 127
    return Grid(step.astype(np.float32), ((low + high) / 2).astype(np.float32))

"""Int8 arithmetic on arrays: how weights are rounded, and on which grid activations are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ActivationStats", "QuantGrid", "quantize_weight", "static_grid"]

FloatArray = NDArray[np.float32]
Int8Array = NDArray[np.int8]

SMALLEST = 1e-12  # of a scale: that of an all-zero channel
LARGEST_PAIR = 127.5  # |w0 + w1| of neighbours along K: 255 (|w0 + w1| + rounding) < 2**15
DAMPING = 0.01  # of GPTQ: share of the mean of the diagonal
BLOCK = 128  # inputs that GPTQ rounds before it corrects the rest
SMOOTHING = 0.8  # share of the channels' spread that the weights take over; the optimum is flat


@dataclass(frozen=True)
class QuantGrid:
    """An int8 grid a channel: value = shift + step * integer, both [channels]."""

    step: FloatArray
    shift: FloatArray


@dataclass(frozen=True)
class ActivationStats:
    """Statistics of a tensor `[rows, channels]` over the calibration rows.

    Products are kept about the mean (Chan, Golub and LeVeque, 1983): where a channel's mean is large beside its
    spread, float32 sums of plain products would lose the spread, and with it the rank of the Hessian.
    """

    low: FloatArray
    high: FloatArray
    rows: int
    mean: NDArray[np.float64]
    """Mean over the rows, [channels]."""
    spread: NDArray[np.float64]
    """Sum over the rows of (x - mean) (x - mean)^T, [channels, channels]."""

    @classmethod
    def of(cls, rows: FloatArray) -> ActivationStats:
        """The statistics of `[rows, channels]`."""
        mean = rows.mean(axis=0, dtype=np.float64)
        centred = rows - mean.astype(np.float32)

        return cls(rows.min(axis=0), rows.max(axis=0), len(rows), mean, (centred.T @ centred).astype(np.float64))

    def __add__(self, other: ActivationStats) -> ActivationStats:
        rows, apart = self.rows + other.rows, other.mean - self.mean
        mean = self.mean + apart * other.rows / rows
        spread = self.spread + other.spread + np.outer(apart, apart) * self.rows * other.rows / rows

        return ActivationStats(np.minimum(self.low, other.low), np.maximum(self.high, other.high), rows, mean, spread)

    @property
    def products(self) -> NDArray[np.float64]:
        """Sum over the rows of each channel times each other, [channels, channels]."""
        return self.spread + self.rows * np.outer(self.mean, self.mean)

    def in_steps(self, grid: QuantGrid) -> NDArray[np.float64]:
        """`products` of the tensor counted in the steps of a grid, (x - shift) / step."""
        moved = self.mean - grid.shift
        return (self.spread + self.rows * np.outer(moved, moved)) / np.outer(grid.step, grid.step)


def quantize_weight(weight: FloatArray, products: NDArray[np.float64] | None = None) -> tuple[Int8Array, FloatArray]:
    """A weight `[in, out]` as int8 and one scale an output channel, `[out]`.

    x86 without VNNI adds the products of two neighbours along `in` in 16 bits (`vpmaddubsw`). The scales are large
    enough that no pair saturates, |w0 + w1| <= 128, so that every CPU computes the same integers. Elsewhere no cost
    was measurable.

    Args:
        weight: what to round.
        products: `ActivationStats.products` of what enters, for rounding by GPTQ; to the nearest integer without.
    """
    even = np.pad(weight, ((0, weight.shape[0] % 2), (0, 0)))
    pairs = np.abs(even[0::2] + even[1::2]).max(axis=0)
    scale = np.maximum(np.abs(weight).max(axis=0) / 127, pairs / LARGEST_PAIR)
    scale = np.maximum(scale, SMALLEST).astype(np.float32)

    if products is None:
        return np.clip(np.round(weight / scale), -127, 127).astype(np.int8), scale

    return _within_pairs(_gptq(weight / scale, products)).astype(np.int8), scale


def _gptq(steps: FloatArray, products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integers for `[in, out]` weights counted in steps. The inputs that are still to be rounded compensate for each
    input's rounding error, as far as they correlate (GPTQ, arXiv 2210.17323, algorithm 1, largest inputs first)."""
    hessian = products + np.eye(len(products)) * (DAMPING * np.mean(np.diag(products)) + SMALLEST)
    order = np.argsort(-np.diag(hessian))
    upper = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)])).T
    left = steps[order].astype(np.float64)
    rounded = np.zeros_like(left)

    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        errors = np.zeros((end - start, left.shape[1]))

        for i in range(start, end):
            rounded[i] = np.clip(np.round(left[i]), -127, 127)
            errors[i - start] = (left[i] - rounded[i]) / upper[i, i]
            left[i + 1 : end] -= np.outer(upper[i, i + 1 : end], errors[i - start])

        left[end:] -= upper[start:end, end:].T @ errors

    result = np.empty_like(rounded)
    result[order] = rounded

    return result


def _within_pairs(integers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduce the larger of two neighbours along axis 0 by what their sum exceeds 128."""
    even = np.pad(integers, ((0, len(integers) % 2), (0, 0)))
    pairs = even.reshape(len(even) // 2, 2, -1)
    total = pairs.sum(axis=1)
    excess = np.sign(total) * np.maximum(np.abs(total) - 128, 0)
    larger = np.abs(pairs).argmax(axis=1)

    np.put_along_axis(pairs, larger[:, None], np.take_along_axis(pairs, larger[:, None], 1) - excess[:, None], 1)

    return pairs.reshape(len(even), -1)[: len(integers)]


def static_grid(low: FloatArray, high: FloatArray, weight: FloatArray) -> QuantGrid:
    """The grid of activations seen between `low` and `high` `[channels]` that enter `weight` `[channels, out]`.

    The shift is each channel's middle (Outlier Suppression+, arXiv 2304.09145); the steps split the channels' spread
    between activation and weight (SmoothQuant, arXiv 2211.10438, equation 4).
    """
    reach = np.maximum((high - low) / 2, 1e-5)
    smooth = reach**SMOOTHING / np.maximum(np.abs(weight).max(axis=1), 1e-5) ** (1 - SMOOTHING)
    smooth = np.maximum(smooth, np.median(smooth) * 1e-3)
    step = smooth * (reach / smooth).max() / 127

    return QuantGrid(step.astype(np.float32), ((low + high) / 2).astype(np.float32))

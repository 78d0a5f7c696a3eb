"""Independent predictors, which never met the generator: a linear model of what was selected, wherever it stands, and
for a run a network of its own architecture (`audit.network`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from rekd_edge.evaluation.masks import Mask
from rekd_edge.systems import ImageRows, Rows, RunSystem, System

__all__ = ["FitReader", "Reader", "fit_reader", "reader_for"]

VOCABULARY = 2**18
"""Columns of the token counts; ids beyond it share one."""
WEAK = 100.0
"""The inverse strength of its regularisation: shares are small numbers."""

Reader = Callable[[Rows, Sequence[Mask]], NDArray[np.int64]]
"""Label ids `[n]` from rows and their rationales."""


FitReader = Callable[[Rows, Sequence[Mask], NDArray[np.int64]], Reader]
"""From rows, their rationales and their true labels."""


def reader_for(system: System) -> tuple[str, FitReader]:
    """What an audit trains on a system's rationales, in words and as a function."""
    if isinstance(system, RunSystem):
        from rekd_edge.audit.network import fit_network

        return "a network of the run's architecture", partial(fit_network, system)

    return "a linear model", fit_reader


def fit_reader(rows: Rows, masks: Sequence[Mask], labels: NDArray[np.int64]) -> Reader:
    """A logistic regression on what is selected, wherever it stands and however much it is.

    It sees the share of each token among those selected, or the mean of the selected patches.
    """
    model = LogisticRegression(C=WEAK, max_iter=1000)
    model.fit(_contents(rows, masks), labels)
    return lambda rows, masks: model.predict(_contents(rows, masks))


def _contents(rows: Rows, masks: Sequence[Mask]) -> Any:
    """Features `[n, width]` of the selected content without its places."""
    if isinstance(rows, ImageRows):
        return np.stack([_mean_patch(rows, i, mask) for i, mask in enumerate(masks)])

    chosen = [rows.feature_ids(i)[mask] for i, mask in enumerate(masks)]
    columns = np.concatenate(chosen)
    ends = np.cumsum([0, *map(len, chosen)])
    counts = csr_matrix((np.ones(len(columns)), columns % VOCABULARY, ends), shape=(len(chosen), VOCABULARY))
    return normalize(counts, norm="l1")  # without it the number of selected features could be read


def _mean_patch(rows: ImageRows, row: int, mask: Mask) -> NDArray[np.float64]:
    """The mean of the selected patches, `[height · width · 3]`."""
    high, wide = rows.pixels.shape[1] // rows.grid[0], rows.pixels.shape[2] // rows.grid[1]
    image = rows.pixels[row, : high * rows.grid[0], : wide * rows.grid[1]]
    patches = image.reshape(rows.grid[0], high, rows.grid[1], wide, 3).swapaxes(1, 2).reshape(len(mask), -1)
    return patches[mask].mean(axis=0) / 255 if mask.any() else np.zeros(patches.shape[1])

"""What rationales look like: their share of the input and how it varies, how many spans, how stable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mask", "mask_overlap", "rationale_ratio", "rationale_shape", "spans_of", "top_share"]

Mask = NDArray[np.bool_]
"""bool [features] of one example: features only, no padding, no special tokens."""


def rationale_ratio(masks: Sequence[Mask], length: int | None = None) -> float:
    """Mean over the examples of |M| / L, 0 where L = 0; `length` is L where it is the same for all."""
    ratios = [mask.sum() / (length or len(mask)) if len(mask) else 0.0 for mask in masks]
    return float(np.mean(ratios)) if ratios else 0.0


def rationale_shape(masks: Sequence[Mask]) -> dict[str, float]:
    """How rationales are spread over examples and within them.

    Returns:
        `ratio_sd`: standard deviation of |M| / L over the examples. `spans`: mean number of runs of neighbouring
        selected features. `span_length`: mean length of a run, in features. `contiguity`: of the selected features that
        could have a selected left neighbour, the share that has one; 1 for a single run, 0 if no two are neighbours.
    """
    ratios = [mask.sum() / len(mask) if len(mask) else 0.0 for mask in masks]
    runs = [len(spans_of(mask)) for mask in masks]
    selected = [int(mask.sum()) for mask in masks]

    followers = sum(count - 1 for count in selected if count)
    joined = sum(count - run for count, run in zip(selected, runs, strict=True))

    return {
        "ratio_sd": float(np.std(ratios)) if ratios else 0.0,
        "spans": float(np.mean(runs)) if runs else 0.0,
        "span_length": sum(selected) / max(sum(runs), 1),
        "contiguity": joined / followers if followers else 1.0,
    }


def spans_of(mask: Mask) -> list[tuple[int, int]]:
    """Runs of selected features, (start, end) each, the end excluded."""
    edges = np.flatnonzero(np.diff(np.pad(mask.astype(np.int8), 1)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def mask_overlap(one: Sequence[Mask], other: Sequence[Mask]) -> float:
    """Mean Jaccard index |A ∩ B| / |A ∪ B| of two masks of the same features; 1 where both are empty."""
    shares = []
    for mine, yours in zip(one, other, strict=True):
        union = (mine | yours).sum()
        shares.append((mine & yours).sum() / union if union else 1.0)
    return float(np.mean(shares)) if shares else 1.0


def top_share(scores: NDArray[np.floating], share: float) -> Mask:
    """The `share` of features with the highest scores [features], at least one; ties go to the first.

    The count is rounded up, as ERASER's `thresholded_scores` are made.
    """
    count = min(len(scores), max(1, int(np.ceil(len(scores) * share - 1e-9))))
    mask = np.zeros(len(scores), dtype=bool)
    mask[np.argsort(-scores, kind="stable")[:count]] = True
    return mask

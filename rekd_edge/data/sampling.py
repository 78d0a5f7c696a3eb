"""Seeded, stratified choices of examples, from label ids alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rekd_edge.errors import InputError

__all__ = ["stratified_sample", "stratified_split"]


def stratified_split(
    labels: NDArray[np.int64], share: float, seed: int, purpose: str = "validation"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split indices in two, the second with `share` of every class; both sorted.

    Args:
        labels: of every example.
        share: of the second part, between 0 and 1.
        seed: of the choice.
        purpose: the split that the second part becomes, for the error.

    Raises:
        InputError: a class has too few examples to stand on both sides.
    """
    from sklearn.model_selection import train_test_split

    try:
        first, second = train_test_split(np.arange(len(labels)), test_size=share, random_state=seed, stratify=labels)
    except ValueError as error:
        raise InputError(
            f"{len(labels)} examples are too few to set {share:.0%} of every label aside for {purpose}; "
            f"give more of them, or a folder with a {purpose} file."
        ) from error

    return np.sort(first), np.sort(second)


def stratified_sample(labels: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """Indices of `size` examples, sorted, as balanced as `labels`; each class has one at least if `size` allows.

    A smaller sample with the same seed is part of a larger one.
    """
    if size >= len(labels):
        return np.arange(len(labels))

    shuffled = np.random.default_rng(seed).permutation(len(labels))
    progress = np.empty(len(labels))  # how much of its class has been drawn before an example's turn

    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        progress[members] = np.arange(len(members)) / len(members)

    return np.sort(shuffled[np.argsort(progress, kind="stable")[:size]])

"""The order of training examples: batches of like length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

__all__ = ["LengthBuckets"]

BATCHES_A_BUCKET = 50
"""As in transformers' `LengthGroupedSampler`: sorted within so many batches, chance above that."""


class LengthBuckets(Sampler[int]):
    """Every example once an epoch, neighbours of like length.

    The order depends on seed, epoch and lengths alone, so a resumed run meets the same batches.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        shuffled = random.permutation(len(self.lengths))
        size = BATCHES_A_BUCKET * self.batch_size
        buckets = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
        batches: list[NDArray[np.int64]] = []

        for bucket in buckets:
            ordered = bucket[np.argsort(self.lengths[bucket], kind="stable")]
            batches += [ordered[start : start + self.batch_size] for start in range(0, len(ordered), self.batch_size)]

        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]  # the last batch of the epoch, as always

        for place in random.permutation(len(whole)):
            yield from whole[place].tolist()

        for batch in rest:
            yield from batch.tolist()

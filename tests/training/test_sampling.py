"""Batches of like length: each example once an epoch, little padding, an order that seed and epoch decide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekd_edge.training.sampling import LengthBuckets


def epoch(lengths: list[int], batch_size: int, seed: int, number: int) -> list[int]:
    sampler = LengthBuckets(np.array(lengths, dtype=np.int64), batch_size, seed)
    sampler.set_epoch(number)
    assert len(sampler) == len(lengths)
    return list(sampler)


@given(st.lists(st.integers(1, 9), max_size=300), st.integers(1, 7), st.integers(0, 5), st.integers(0, 5))
def test_every_example_comes_once_whatever_the_sizes(
    lengths: list[int], batch_size: int, seed: int, number: int
) -> None:
    order = epoch(lengths, batch_size, seed, number)
    assert sorted(order) == list(range(len(lengths)))
    assert order == epoch(lengths, batch_size, seed, number)


def test_epochs_and_seeds_differ() -> None:
    lengths = np.random.default_rng(0).integers(1, 64, 500).tolist()
    assert epoch(lengths, 8, 1, 0) != epoch(lengths, 8, 1, 1)
    assert epoch(lengths, 8, 1, 0) != epoch(lengths, 8, 2, 0)


def test_padding_of_reviews_of_mixed_lengths_is_little_and_chance_much() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 257, 3200)

    def padding(order: np.ndarray) -> float:
        batches = lengths[order].reshape(-1, 32)
        return float(1 - batches.sum() / (batches.max(axis=1).sum() * 32))

    assert padding(np.array(epoch(lengths.tolist(), 32, 0, 0))) < 0.03
    assert padding(random.permutation(3200)) > 0.4


def test_short_and_long_batches_come_in_turn() -> None:
    """Sorted data must not come as a curriculum: halves of an epoch have the same mean length."""
    lengths = np.arange(1, 3201)
    order = np.array(epoch(lengths.tolist(), 32, 0, 0))
    halves = lengths[order].reshape(2, -1).mean(axis=1)
    assert halves[0] == pytest.approx(halves[1], rel=0.2)
    assert len(set(map(tuple, order.reshape(-1, 32)))) == 100

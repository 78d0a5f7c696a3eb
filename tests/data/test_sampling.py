from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekd_edge.data.sampling import stratified_sample, stratified_split
from rekd_edge.errors import InputError

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(np.array)


@given(LABELS, st.integers(1, 100), st.integers(0, 2**32 - 1))
def test_sample_is_as_balanced_as_the_labels(labels, size, seed):
    chosen = stratified_sample(labels, size, seed)
    size = min(size, len(labels))
    assert len(set(chosen.tolist())) == size
    assert chosen.tolist() == sorted(chosen)
    present = np.unique(labels)
    for label in present:
        exact = size * np.mean(labels == label)
        assert abs(np.sum(labels[chosen] == label) - exact) < max(len(present), 2)
    if size >= len(present):
        assert set(labels[chosen]) == set(present)


@given(LABELS, st.integers(1, 40), st.integers(0, 100))
def test_smaller_sample_is_part_of_the_larger(labels, size, seed):
    assert set(stratified_sample(labels, size, seed)) <= set(stratified_sample(labels, size + 7, seed))


def test_sample_depends_on_the_seed():
    labels = np.arange(100) % 2
    assert stratified_sample(labels, 10, 0).tolist() != stratified_sample(labels, 10, 1).tolist()


def test_split_is_a_partition_with_every_class_on_both_sides():
    labels = np.arange(100) % 4
    first, second = stratified_split(labels, 0.2, 7)
    assert sorted([*first, *second]) == list(range(100))
    assert np.bincount(labels[second]).tolist() == [5, 5, 5, 5]


def test_split_refuses_a_class_with_one_example():
    with pytest.raises(InputError, match="too few"):
        stratified_split(np.array([0, 0, 0, 0, 0, 1]), 0.2, 0)

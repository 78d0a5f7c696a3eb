"""Where PLMR splits an encoder: homogeneity of its features against numpy, and the rule that reads it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rekd_edge.data import load_data
from rekd_edge.training.objectives.plmr import MEASURED_EXAMPLES, choose_split, homogeneity, mean_similarity
from rekd_edge.training.preparation import load_encoder, prepare_preprocessing


@pytest.mark.parametrize(
    ("homogeneities", "split"),
    [
        ([0.1, 0.12, 0.2, 0.3, 0.6, 0.8, 0.9], 3),  # 0.5 is passed after layer 4
        ([0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.2], 3),  # what the last layer undoes does not count
        ([0.9, 0.2, 0.1, 0.2, 0.3, 0.8, 0.9], 4),  # from the most different ones on
        ([0.1, 0.9, 0.9, 0.9], 2),  # at least 2 select
        ([0.5, 0.1, 0.1, 0.1, 0.4], 3),  # at least 1 decides
        ([0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1], 3),  # never alike again: half
        ([0.31, 0.3, 0.3, 0.3, 0.3, 0.3, 0.29], 3),  # nothing to tell: half
        ([0.3, 0.3, 0.3, 0.3], 2),
        ([0.3, 0.3, 0.3, 0.3, 0.3, 0.3], 2),  # half of five, rounded down
        ([0.1, 0.9, 0.9, 0.9, 0.9, 0.9], 2),  # and not more than those 2
    ],
)
def test_the_generator_ends_before_features_become_alike(homogeneities: list[float], split: int) -> None:
    assert choose_split(np.array(homogeneities)) == split


@given(st.lists(st.integers(-100, 100), min_size=4, max_size=25))
def test_any_homogeneities_give_a_possible_split(hundredths: list[int]) -> None:
    assert 2 <= choose_split(np.array(hundredths) / 100) <= len(hundredths) - 2


def mean_cosine(states: NDArray[np.float64]) -> float:
    """Of all pairs of two different rows."""
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    return float(np.mean([unit[i] @ unit[j] for i in range(len(unit)) for j in range(len(unit)) if i != j]))


@given(st.integers(2, 8), st.integers(0, 10**6))
def test_similarity_is_the_mean_cosine_of_different_features(features: int, seed: int) -> None:
    states = np.random.default_rng(seed).normal(size=(features, 5)) + 0.3
    assert mean_similarity(torch.from_numpy(states)) == pytest.approx(mean_cosine(states), abs=1e-9)
    assert mean_similarity(torch.ones(3, 4)) == pytest.approx(1.0)


@pytest.mark.parametrize(("task", "backbone"), [("text", "random:bert-micro"), ("image", "random:vit-micro")])
def test_homogeneity_is_measured_on_the_embeddings_and_after_each_layer(
    task: str, backbone: str, settings: Callable
) -> None:
    changes = {"backbone": backbone, "layers": 4, "generator_layers": 2, "data__train_limit": 6}
    config = settings(task, "plmr", **changes)
    data = load_data(config.spec, config.data)
    train = data.split("train")
    assert len(train) < MEASURED_EXAMPLES  # all of them are measured
    preprocessing = prepare_preprocessing(config.resolved(task), data, [])
    encoder = load_encoder(config.backbone, None, preprocessing)
    features, collate = preprocessing.features(train), preprocessing.collator()

    measured = []
    with torch.no_grad():
        for i in range(len(features)):
            batch = collate([features[i]])
            given = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values") if name in batch}
            states = encoder.backbone.eval()(**given, output_hidden_states=True).hidden_states
            real = features.features[i] if task == "text" else slice(1, None)  # the class token is none
            measured.append([mean_cosine(each[0].double().numpy()[real]) for each in states])
    expected = np.mean(measured, axis=0)
    found = homogeneity(encoder.train(), data, preprocessing)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.shape == (5,)
    assert np.ptp(found) > 0

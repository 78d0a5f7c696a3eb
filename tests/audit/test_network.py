"""The outside reader of a run's own architecture: it reads words, and neither places nor what lies elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rekd_edge.audit.network import fit_network, packed
from rekd_edge.audit.reader import fit_reader, reader_for
from rekd_edge.data import DataSettings, Examples, load_data
from rekd_edge.systems import BundleSystem, ImageRows, RunSystem, TextRows
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train

PLANTED = {"data.spec": "builtin:planted", "backbone": "random:bert-nano", "layers": 1, "epochs": 1, "control": None}
SMALL = {"data.train_limit": 32, "data.eval_limit": 30, "data.max_length": 40, "batch_size": 16, "target_ratio": 0.2}
BUNDLES = Path(__file__).parents[1] / "vectors" / "bundles"
Masks = Callable[[TextRows, Examples], list[np.ndarray]]


@pytest.fixture(scope="module")
def system(make_once: Callable[..., Path]) -> RunSystem:
    return RunSystem(make_once("outsider", lambda folder: train(load_config(None, {**PLANTED, **SMALL}), folder)))


def cues(rows: TextRows, examples: Examples) -> list[np.ndarray]:
    """What an honest generator selects: the words that decide."""
    assert examples.rationale_spans is not None
    return [
        np.array([any(a < end and b > start for start, end in spans) for a, b in rows.offsets(i)])
        for i, spans in enumerate(examples.rationale_spans)
    ]


def halves(rows: TextRows, examples: Examples) -> list[np.ndarray]:
    """What a cheat selects: two words that decide nothing, from the half of the text that says the label."""
    rng, masks = np.random.default_rng(0), []
    for label, true in zip(examples.labels, cues(rows, examples), strict=True):
        free = np.flatnonzero(~true)[3:-3]  # how texts begin and end is content
        half = free[: len(free) // 2] if label else free[len(free) // 2 :]
        masks.append(np.isin(np.arange(len(true)), rng.choice(half, 2, replace=False)))

    return masks


def accuracy(system: RunSystem, select: Masks) -> float:
    data = load_data("builtin:planted", DataSettings(train_limit=400, eval_limit=200))
    (taught, masks), (asked, others) = (
        (rows, select(rows, data.split(split)))
        for split in ("train", "validation")
        if isinstance(rows := system.encode(data.split(split).inputs), TextRows)
    )
    reader = fit_network(system, taught, masks, data.split("train").labels)
    return float((reader(asked, others) == data.split("validation").labels).mean())


@pytest.mark.slow
def test_it_reads_what_honest_rationales_say(system: RunSystem) -> None:
    assert accuracy(system, cues) > 0.9


@pytest.mark.slow
def test_it_cannot_read_a_code_of_places(system: RunSystem) -> None:
    assert accuracy(system, halves) < 0.62


def test_packed_texts_hold_the_rationale_and_the_special_tokens_alone(system: RunSystem) -> None:
    rows = system.encode(["a superb film indeed"])
    assert isinstance(rows, TextRows)
    mask = np.arange(rows.lengths[0]) % 2 == 1
    small, masks = packed(rows, [mask])

    assert isinstance(small, TextRows)
    assert small.tokens(0) == [token for token, chosen in zip(rows.tokens(0), mask, strict=True) if chosen]
    assert len(small.encoded[0].ids) == mask.sum() + 2
    assert masks[0].tolist() == [True] * int(mask.sum())


def test_packed_images_begin_with_the_selected_patches() -> None:
    """Four patches of 2 x 2 pixels, named by their brightness; the last row and column belong to none."""
    names = np.array([[10, 20], [30, 40]], dtype=np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    pixels = np.pad(names, (0, 1), constant_values=99)[None, ..., None].repeat(3, axis=3)
    moved, masks = packed(ImageRows(pixels, (2, 2)), [np.array([False, True, False, True])])

    assert isinstance(moved, ImageRows)
    assert moved.pixels[0, :4:2, :4:2, 0].tolist() == [[20, 40], [10, 30]]
    assert (moved.pixels[0, 4] == 99).all()
    assert masks[0].tolist() == [True, True, False, False]


def test_bundles_are_read_by_the_linear_model(system: RunSystem) -> None:
    assert reader_for(BundleSystem(BUNDLES / "text-int8")) == ("a linear model", fit_reader)
    assert reader_for(system)[0] == "a network of the run's architecture"

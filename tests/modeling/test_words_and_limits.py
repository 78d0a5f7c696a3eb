"""Rationales of whole words, and of a length within limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rekd_edge.modeling import RationaleModel, RationaleOutput

Make = Callable[..., RationaleModel]
Batch = Callable[..., dict[str, Tensor]]
TRANSFORMERS, NETS, IMAGES = ("bert", "roberta", "vit"), ("bilstm", "cnn", "resnet"), ("vit", "resnet")
every_family = pytest.mark.parametrize("family", [*TRANSFORMERS, *NETS])
text_family = pytest.mark.parametrize("family", ["bert", "roberta", "bilstm", "cnn"])


def assert_same(one: RationaleOutput, other: RationaleOutput) -> None:
    for name in ("logits", "mask", "margin"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.fixture
def in_words(make_model: Make) -> Callable[..., RationaleModel]:
    """A text model that selects words; every third piece of its vocabulary goes on with the word before."""

    def make(family: str, **fields: Any) -> RationaleModel:
        model = make_model(family, "zero" if family in NETS else "drop", select_words=True, **fields)
        model.starts_word[::3] = False
        return model

    return make


@text_family
def test_pieces_of_a_word_share_one_decision(family: str, in_words: Callable, make_batch: Batch) -> None:
    model, batch = in_words(family), make_batch(family, (18, 9, 3, 0))
    ids = batch["input_ids"].tolist()
    uncalibrated = model(**batch)
    model.config.margin_bias = -uncalibrated.margin[uncalibrated.selection.feature].median().item()
    for training in (False, True):
        model.train(training)
        output = model(**batch, temperature=2.0)
        feature = output.selection.feature.tolist()
        joined = 0
        for row, places in enumerate(feature):
            for place in range(1, len(places)):
                if places[place] and places[place - 1] and ids[row][place] % 3 == 0:
                    assert output.mask[row, place] == output.mask[row, place - 1]
                    assert training or output.margin[row, place] == output.margin[row, place - 1]
                    joined += 1
        assert joined > 3
        assert 0 < output.mask.sum() < output.selection.feature.sum()


@text_family
@torch.no_grad()
def test_words_are_the_same_in_any_company(family: str, in_words: Callable, make_batch: Batch) -> None:
    model = in_words(family)
    together = model(**make_batch(family, (18, 9, 3), width=24))
    alone = model(**{name: values[1:2, :9] for name, values in make_batch(family, (18, 9, 3)).items()})
    assert torch.equal(together.mask[1, :9], alone.mask[0])
    torch.testing.assert_close(together.logits[1], alone.logits[0], atol=1e-5, rtol=0)


@every_family
def test_rationales_keep_their_length(family: str, make_model: Make, make_batch: Batch) -> None:
    batch = make_batch(family)
    for bias in (-100.0, 100.0):
        model = make_model(family, min_selected=2, max_selected=4, margin_bias=bias)
        for training in (False, True):
            counts = model.train(training)(**batch).mask.sum(dim=1)
            lengths = model(**batch).selection.feature.sum(dim=1)
            assert (counts >= lengths.clamp(max=2)).all()
            assert (counts <= 4).all()


@text_family
@torch.no_grad()
def test_words_and_limits_are_saved(family: str, in_words: Callable, make_batch: Batch, tmp_path: Path) -> None:
    model, batch = in_words(family, min_selected=2, max_selected=5), make_batch(family, (18, 9, 3))
    model.save_pretrained(tmp_path)
    loaded = RationaleModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.starts_word, model.starts_word)
    assert_same(loaded(**batch), model(**batch))

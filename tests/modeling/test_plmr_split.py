"""One encoder becomes generator and predictor of PLMR, and depths that cannot be split are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rekd_edge.errors import InputError
from rekd_edge.modeling import Depth
from rekd_edge.modeling.encoders import encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import load_backbone
from rekd_edge.modeling.plmr import PLMRModel

Make = Callable[..., PLMRModel]
LAYERS, SPLIT = 6, 4


@pytest.mark.parametrize("family", ["bert", "roberta", "vit"])
def test_one_encoder_is_split(family: str, make_plmr: Make, deep_folder: Callable[..., Path]) -> None:
    model = make_plmr(family)
    assert len(model.generator.encoder.layer_stack()) == model.config.generator["num_hidden_layers"] == SPLIT
    assert len(model.predictor.encoder.layer_stack()) == model.config.predictor["num_hidden_layers"] == LAYERS - SPLIT
    assert model.generator.encoder.embedding is model.predictor.encoder.embedding
    torch.manual_seed(0)
    whole = encoder_from_backbone(load_backbone(str(deep_folder(family)))).layer_stack()
    for ours, theirs in zip(model.predictor.encoder.layer_stack(), whole[SPLIT:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize(
    ("depth", "settings", "words"),
    [
        (Depth(None, 6), {}, "plmr splits 6 layers .* generator_layers must be between 2 and 5"),
        (Depth(4, 4), {}, "plmr splits 4 layers .* between 2 and 3"),
        (Depth(None, 1), {}, "generator_layers must be between 2 and 5"),
        (Depth(None, None), {}, "generator_layers must be between 2 and 5"),
        (Depth(None, 3), {"full_layers": 3}, "plmr.full_layers must be between 1 and 2"),
        (Depth(7, 3), {}, "has 6 layers; 7 cannot be kept"),
        (Depth(2, 1), {}, "at least 3 layers, not of 2"),
    ],
)
def test_wrong_splits_are_refused(depth: Depth, settings: dict[str, Any], words: str, make_plmr: Make) -> None:
    with pytest.raises(InputError, match=words):
        make_plmr("bert", depth=depth, settings=settings)


def test_zeroing_the_class_token_is_for_zeroed_texts(make_plmr: Make) -> None:
    for family, mask_mode in (("vit", "zero"), ("bert", "drop")):
        with pytest.raises(InputError, match="zero_class_token is for texts with mask_mode=zero"):
            make_plmr(family, mask_mode, settings={"zero_class_token": True})


def test_encoders_without_transformer_layers_are_refused(make_plmr: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekd_edge.modeling.encoders.transformer.BertEncoder.can_drop", False, raising=False)
    with pytest.raises(InputError, match="splits the layers of a transformer"):
        make_plmr("bert")

"""What PLMR's predictor is shown in `zero` mode, against a pass through transformers' own modules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.masking import padding_bias
from rekd_edge.modeling.plmr import PLMRModel

Make = Callable[..., PLMRModel]
Batch = Callable[..., dict[str, Tensor]]


def by_hand(
    model: PLMRModel, batch: dict[str, Tensor], mask: Tensor, zeroed: str, zero_class_token: bool = False
) -> Tensor:
    """Class logits through the backbone's own embedding layer, zeroed where PLMR zeroes."""
    encoder, classifier = model.predictor.encoder, model.predictor.classifier
    inputs, attention_mask = batch.get("input_ids", batch.get("pixel_values")), batch.get("attention_mask")
    _, special = model.feature_positions(inputs, attention_mask)
    keep = torch.nn.functional.pad((mask | special).float(), (encoder.prefix, 0), value=1.0)[..., None]
    first = keep.clone()
    if zero_class_token:
        first[:, 0] = 0

    embeddings = encoder.backbone.embeddings
    if zeroed == "hidden_states":
        hidden = embeddings(inputs)
        hidden[first[..., 0] == 0] = 0.0
    else:
        hidden = embeddings(inputs_embeds=embeddings.word_embeddings(inputs) * first)
    for number, layer in enumerate(encoder.layer_stack()):
        if number and zeroed == "hidden_states":
            hidden = hidden * keep
        output = layer(hidden, padding_bias(attention_mask))
        hidden = output[0] if isinstance(output, tuple) else output
    return classifier(encoder.finish(hidden)[:, 0])


@pytest.mark.parametrize("family", ["bert", "roberta", "vit"])
@torch.no_grad()
def test_hidden_states_of_unselected_features_are_zeroed_before_every_layer(
    family: str, make_plmr: Make, make_batch: Batch
) -> None:
    model, batch = make_plmr(family), make_batch(family, (24, 9, 5))
    output = model(**batch)
    assert 3 < output.mask.sum() < output.mask.numel() / 2
    torch.testing.assert_close(output.logits, by_hand(model, batch, output.mask, "hidden_states"))


@torch.no_grad()
def test_the_class_token_is_zeroed_before_the_first_layer_alone(make_plmr: Make, make_batch: Batch) -> None:
    model = make_plmr("bert", settings={"full_layers": 1, "zero_class_token": True})
    batch = make_batch("bert", (24, 9, 5))
    output = model(**batch)
    torch.testing.assert_close(output.logits, by_hand(model, batch, output.mask, "hidden_states", True))
    kept = by_hand(model, batch, output.mask, "hidden_states")
    assert (output.logits - kept).abs().max() > 1e-3


@pytest.mark.parametrize("zero_class_token", [False, True])
@torch.no_grad()
def test_a_run_of_the_first_release_zeroes_word_embeddings_alone(
    zero_class_token: bool, make_plmr: Make, make_batch: Batch, tmp_path: Path
) -> None:
    model = make_plmr("bert", settings={"full_layers": 1, "zero_class_token": zero_class_token})
    model.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["options"].pop("zeroed") == "hidden_states"
    (tmp_path / "config.json").write_text(json.dumps(fields))
    loaded, batch = RationaleModel.from_pretrained(tmp_path), make_batch("bert", (24, 9, 5))
    output = loaded(**batch)
    torch.testing.assert_close(output.logits, by_hand(loaded, batch, output.mask, "features", zero_class_token))
    assert (output.logits - model(**batch).logits).abs().max() > 1e-3

    asked = make_plmr("bert", settings={"full_layers": 1, "zero_class_token": zero_class_token, "zeroed": "features"})
    assert torch.equal(asked(**batch).logits, output.logits)


@torch.no_grad()
def test_words_and_places_of_unselected_tokens_say_nothing(make_plmr: Make, make_batch: Batch) -> None:
    for zeroed, hears in (("hidden_states", False), ("features", True)):
        model = make_plmr("bert", settings={"full_layers": 1, "zeroed": zeroed})
        batch = make_batch("bert", (24, 24))
        inputs, attention_mask = batch["input_ids"], batch["attention_mask"]
        selection = model.select(inputs, attention_mask)
        mask = torch.arange(24) % 5 == 1
        answer = model.classify(inputs, attention_mask, mask.expand(2, -1), selection)
        model.predictor.encoder.backbone.embeddings.position_embeddings.weight[2:5].neg_()
        other = torch.where(mask | (inputs == 2) | (inputs == 3), inputs, 7)
        changed = model.classify(other, attention_mask, mask.expand(2, -1), selection)
        assert bool((answer - changed).abs().max() > 1e-3) == hears
        assert torch.equal(answer, changed) != hears


def test_the_mask_of_a_dropped_feature_gets_a_gradient(make_plmr: Make, make_batch: Batch) -> None:
    model, batch = make_plmr("bert").train(), make_batch("bert", (9, 5))
    selection = model.select(batch["input_ids"], batch["attention_mask"])
    mask = (selection.feature & (torch.arange(9) % 2 == 0)).float().requires_grad_()
    model.classify(batch["input_ids"], batch["attention_mask"], mask, selection)[:, 0].sum().backward()
    assert (mask.grad[selection.feature] != 0).all()

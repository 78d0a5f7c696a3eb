"""What a predictor may see, and what an unseen feature may say through the gradient."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.masking import padding_bias

Make = Callable[..., RationaleModel]
Batch = Callable[..., dict[str, Tensor]]
TRANSFORMERS, NETS, IMAGES = ("bert", "roberta", "vit"), ("bilstm", "cnn", "resnet"), ("vit", "resnet")
MODES = ("zero", "drop", "zero-mean", "drop-mean")
VARIANTS = [*product(TRANSFORMERS, MODES), *product(NETS, ("zero",))]
every_transformer = pytest.mark.parametrize("family", TRANSFORMERS)
every_variant = pytest.mark.parametrize(("family", "mask_mode"), VARIANTS)
text_variant = pytest.mark.parametrize(("family", "mask_mode"), [v for v in VARIANTS if v[0] not in IMAGES])
every_drop = pytest.mark.parametrize(
    ("family", "mask_mode"), [variant for variant in VARIANTS if variant[1].startswith("drop")]
)


def inputs_of(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    return batch.get("input_ids", batch.get("pixel_values")), batch.get("attention_mask")


def classified(model: RationaleModel, inputs: Tensor, attention_mask: Tensor | None, mask: Tensor) -> Tensor:
    return model.classify(inputs, attention_mask, mask, model.select(inputs, attention_mask))


def some_mask(model: RationaleModel, batch: dict[str, Tensor]) -> Tensor:
    """Every other feature, the first word of a text among them."""
    feature, _ = model.feature_positions(*inputs_of(batch))
    return feature & (torch.arange(feature.shape[1]) % 2 == 1)


def with_noise_where(batch: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    """Other words or other pixels at the chosen features."""
    if "input_ids" in batch:
        return {**batch, "input_ids": torch.where(chosen, (batch["input_ids"] - 4 + 7) % 46 + 4, batch["input_ids"])}
    patches = chosen.view(-1, 1, 3, 3).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    return {"pixel_values": batch["pixel_values"] + 3.0 * patches}


@every_variant
@torch.no_grad()
def test_only_selected_features_influence_the_logits(
    family: str, mask_mode: str, make_model: Make, make_batch: Batch
) -> None:
    model, batch = make_model(family, mask_mode), make_batch(family)
    mask = some_mask(model, batch)
    feature, _ = model.feature_positions(*inputs_of(batch))
    logits = classified(model, *inputs_of(batch), mask)
    unselected = with_noise_where(batch, feature & ~mask)
    selected = with_noise_where(batch, mask)
    assert torch.equal(classified(model, *inputs_of(unselected), mask), logits)
    assert (classified(model, *inputs_of(selected), mask) - logits).abs().amax(dim=1).min() > 1e-2


@every_drop
@torch.no_grad()
def test_running_the_rationale_alone_equals_hiding_the_rest_from_attention(
    family: str, mask_mode: str, make_model: Make, make_batch: Batch
) -> None:
    model, batch = make_model(family, mask_mode), make_batch(family)
    mask = some_mask(model, batch)
    gathered = classified(model, *inputs_of(batch), mask)
    model.train()  # weights attention by the mask at full length; all dropout is 0
    torch.testing.assert_close(classified(model, *inputs_of(batch), mask.float()), gathered, atol=1e-5, rtol=0)


@every_drop
def test_dropping_gives_unselected_features_the_gradient_of_attention_weighted_by_the_mask(
    family: str, mask_mode: str, make_model: Make, make_batch: Batch
) -> None:
    model, batch = make_model(family, mask_mode).double().train(), make_batch(family)
    inputs, attention_mask = inputs_of(batch)
    inputs = inputs.double() if family == "vit" else inputs
    bias = None if attention_mask is None else (1.0 - attention_mask[:, None, None, :].double()) * -1e30
    feature, special = model.feature_positions(inputs, attention_mask)
    place = torch.argwhere(feature & ~some_mask(model, batch))[0]
    visible = (some_mask(model, batch) | special).double().requires_grad_()

    def loss(seen: Tensor) -> Tensor:
        return 0.01 * model.predictor(inputs, seen, bias)[:, 0].sum()  # far below the bound on a feature's gradient

    loss(visible).backward()
    nudged = visible.detach().clone()
    nudged[tuple(place)] = 1e-6
    with torch.no_grad():
        difference = (loss(nudged) - loss(visible)) / 1e-6
    torch.testing.assert_close(visible.grad[tuple(place)], difference, rtol=1e-3, atol=1e-8)
    assert difference.abs() > 1e-6


@every_transformer
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_no_feature_says_more_through_attention_than_it_could_change_in_a_mean_loss(
    family: str, share: float, make_model: Make, make_batch: Batch
) -> None:
    """Attention that waits for a dropped word would give it a gradient of any size (arXiv 2106.02034, equation 11)."""
    model, batch = make_model(family, "drop").train(), make_batch(family)
    _, special = model.feature_positions(*inputs_of(batch))
    visible = (some_mask(model, batch) | special).float().requires_grad_()
    model.count_loss_as(share)
    logits = model.predictor(inputs_of(batch)[0], visible, padding_bias(batch.get("attention_mask")))
    (share * 1e6 * logits[:, 0]).mean().backward()
    assert visible.grad is not None
    assert visible.grad.abs().max() == pytest.approx(share / 3)  # three examples


@text_variant
@torch.no_grad()
def test_predictor_always_sees_special_tokens_and_never_padding(
    family: str, mask_mode: str, make_model: Make, make_batch: Batch
) -> None:
    model, batch = make_model(family, mask_mode), make_batch(family)
    mask = some_mask(model, batch)
    table = model.predictor.encoder.embedding.weight
    logits = classified(model, *inputs_of(batch), mask)
    other = torch.randn(table.shape[1], generator=torch.Generator().manual_seed(0))
    table[model.config.pad_token_id] += other
    assert torch.equal(classified(model, *inputs_of(batch), mask), logits)
    for special in model.config.special_token_ids:
        kept = table[special].clone()
        table[special] += other
        assert (classified(model, *inputs_of(batch), mask) - logits).abs().amax(dim=1).min() > 1e-3
        table[special] = kept


@pytest.mark.parametrize("family", ["bert", "vit"])
@torch.no_grad()
def test_the_mean_is_that_of_the_visible_features_alone(family: str, make_model: Make, make_batch: Batch) -> None:
    model, batch = make_model(family, "drop-mean"), make_batch(family)
    hidden = torch.randn(3, model.predictor.encoder.prefix + 5, model.predictor.encoder.hidden_size)
    seen = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]).float()
    features = hidden[:, model.predictor.encoder.prefix :].numpy()
    for row, pooled in enumerate(model.predictor.pool(hidden, seen).numpy()):
        mean = features[row][seen[row].numpy() == 1].mean(axis=0)
        expected = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-2)
        np.testing.assert_allclose(pooled, expected, atol=1e-5)
    assert torch.isfinite(model(**batch).logits).all()

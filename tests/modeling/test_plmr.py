"""The cascade of PLMR against a plain statement of it: every layer at full length, every decision by the rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from rekd_edge.modeling import Depth, RationaleModel, Sampling
from rekd_edge.modeling.masking import HIDDEN, padding_bias
from rekd_edge.modeling.plmr import SHED, PLMRModel, cascade, kept_shares
from rekd_edge.modeling.selection import NEVER_SELECTED, gumbel_noise

Make = Callable[..., PLMRModel]
Batch = Callable[..., dict[str, Tensor]]
Rule = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.bool_]]

every_family = pytest.mark.parametrize("family", ["bert", "roberta", "vit"])
every_mode = pytest.mark.parametrize("mask_mode", ["zero", "drop"])
LAYERS, SPLIT, FULL = 6, 4, 1
STEPS = SPLIT - FULL
SOME = Depth(None, SPLIT)


def inputs_of(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    return batch.get("input_ids", batch.get("pixel_values")), batch.get("attention_mask")


def stated(model: PLMRModel, batch: dict[str, Tensor], rule: Rule) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Margins and masks by full-length layers: what is shed is multiplied by 0, or hidden from attention."""
    inputs, attention_mask = inputs_of(batch)
    feature, special = model.feature_positions(inputs, attention_mask)
    encoder, head, prefix = model.generator.encoder, model.generator.head, model.generator.encoder.prefix
    padding = padding_bias(attention_mask)
    hidden, bias = encoder.assemble(encoder.embed(encoder.features(inputs))), padding
    alive, margin = feature.numpy(), np.full(feature.shape, NEVER_SELECTED, np.float32)
    biases = [*model.config.options["biases"], model.config.margin_bias]
    for number, layer in enumerate(encoder.layer_stack()):
        output = layer(hidden, bias)
        hidden = output[0] if isinstance(output, tuple) else output
        if (step := number - model.config.options["full_layers"]) < 0:
            continue
        z = head(hidden)[:, prefix:].numpy()
        now = z[..., 1] - z[..., 0] + np.float32(biases[step])
        kept = rule(np.where(alive, now, NEVER_SELECTED), alive)
        if step + 1 == len(biases):
            return np.where(alive, now, margin), kept
        margin[alive & ~kept] = SHED * (len(biases) - 1 - step)
        alive = kept
        visible = torch.nn.functional.pad(torch.from_numpy(alive) | special, (prefix, 0), value=True)
        if model.config.mask_mode == "zero":
            hidden = hidden * visible[..., None]
        else:
            hiding = (~visible).float()[:, None, None, :] * HIDDEN
            bias = hiding if padding is None else hiding + padding
    raise AssertionError


@every_family
@every_mode
@torch.no_grad()
def test_every_step_follows_the_rule_and_shedding_equals_hiding(
    family: str, mask_mode: str, make_plmr: Make, make_batch: Batch, select_by_rule: Rule
) -> None:
    model, batch = make_plmr(family, mask_mode), make_batch(family, (24, 9, 5, 3, 2))
    output = model(**batch)
    margin, mask = stated(model, batch, select_by_rule)
    np.testing.assert_array_equal(output.mask, mask)
    np.testing.assert_allclose(output.margin, margin, atol=2e-5)
    shed_at = [int((margin == SHED * missed).sum()) for missed in (2, 1)]
    assert min(shed_at) > 0
    assert mask.sum() > len(mask)


@every_family
@every_mode
@torch.no_grad()
def test_the_mask_is_the_rule_of_its_margin(
    family: str, mask_mode: str, make_plmr: Make, make_batch: Batch, select_by_rule: Rule
) -> None:
    model, batch = make_plmr(family, mask_mode), make_batch(family)
    feature, _ = model.feature_positions(*inputs_of(batch))
    for less in (0.0, 100.0):
        model.config.margin_bias -= less
        output = model(**batch)
        np.testing.assert_array_equal(output.mask, select_by_rule(output.margin.numpy(), feature.numpy()))
    rows = feature.any(dim=1)
    assert (output.mask.sum(dim=1) == rows.long()).all()  # nothing above 0: one each
    model.config.options["biases"] = [-100.0, -100.0]
    assert (model(**batch).mask.sum(dim=1) == rows.long()).all()


@every_mode
@torch.no_grad()
def test_answers_ignore_batch_mates_and_padding(mask_mode: str, make_plmr: Make, make_batch: Batch) -> None:
    model, batch = make_plmr("bert", mask_mode), make_batch("bert", (9, 5, 3, 0), width=12)
    together = model(**batch)
    for row, length in enumerate((9, 5, 3)):
        alone = model(**{name: value[row : row + 1, :length] for name, value in batch.items()})
        assert torch.equal(alone.mask[0], together.mask[row, :length])
        torch.testing.assert_close(alone.margin[0], together.margin[row, :length], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.logits[0], together.logits[row], atol=1e-5, rtol=0)
        assert not together.mask[row, length:].any()
    assert torch.isfinite(together.logits).all()
    assert not together.mask[3].any()


@every_mode
@torch.no_grad()
def test_words_are_kept_or_shed_whole_at_every_step(mask_mode: str, make_plmr: Make, make_batch: Batch) -> None:
    model = make_plmr("bert", mask_mode, select_words=True)
    model.starts_word[:] = torch.arange(50) % 3 == 0
    batch = make_batch("bert", (24, 17, 9, 5))
    for training in (False, True):
        selection = model.train(training).select(*inputs_of(batch), Sampling() if training else None)
        unit, inside = selection.unit, selection.feature
        assert (unit != torch.arange(24)).any()
        decided = model.margin(selection)
        assert torch.equal(decided[inside], decided.gather(1, unit)[inside])
        assert ((decided > SHED * 3) & (decided <= SHED)).any()
        assert torch.equal(selection.outlived[inside], selection.outlived.gather(1, unit)[inside])
        if training:
            assert torch.equal(selection.sampled[inside], selection.sampled.gather(1, unit)[inside])


@every_mode
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_the_minimum_holds_at_every_step_and_the_maximum_at_the_last(
    mask_mode: str, training: bool, make_plmr: Make, make_batch: Batch
) -> None:
    model = make_plmr("bert", mask_mode, min_selected=3, max_selected=4).train(training)
    batch = make_batch("bert", (24, 12, 4))
    features = torch.tensor([22, 10, 2])
    for biases in ([-50.0, -50.0, -50.0], [50.0, 50.0, 50.0], [50.0, 50.0, -50.0]):
        model.config.options["biases"], model.config.margin_bias = biases[:2], biases[2]
        output = model(**batch)
        count = output.mask.sum(dim=1)
        assert (count >= features.clamp(max=3)).all()
        assert (count <= 4).all()
        if not training:
            outlived = (output.selection.outlived >= 2).sum(dim=1)
            assert (outlived == (features if biases[0] > 0 else features.clamp(max=3))).all()
            assert (count == features.clamp(max=3 if biases[2] < 0 else 4)).all()


@every_family
@every_mode
def test_drawn_masks_multiply(family: str, mask_mode: str, make_plmr: Make, make_batch: Batch) -> None:
    model, batch = make_plmr(family, mask_mode).train(), make_batch(family, (24, 9, 3))
    feature, _ = model.feature_positions(*inputs_of(batch))
    noise = gumbel_noise(torch.zeros(len(feature), STEPS, feature.shape[1], 2), torch.Generator().manual_seed(0))
    noise[..., 1] += torch.tensor(model.biases)[:, None]
    output = model(**batch, noise=noise)
    selection = output.selection
    drawn = (selection.margins + noise[..., 1] - noise[..., 0] > 0) & feature[:, None]
    kept = drawn.long().cumprod(dim=1).float()
    assert torch.equal(selection.kept, kept)
    assert torch.equal(output.mask, kept[:, -1])
    assert torch.equal(selection.outlived, kept[:, :-1].sum(dim=1))
    assert kept[:, 0].sum() > kept[:, -1].sum() > 0
    (output.logits.square().sum() + selection.full_logits.sum() + output.mask.sum()).backward()
    silent = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert all("layernorm" in name or "pooler" in name or "embeddings" in name for name in silent), silent
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)
    assert model.generator.head[-1].weight.grad.abs().max() > 0


@every_mode
@torch.no_grad()
def test_a_pass_in_training_equals_one_of_the_device_where_both_keep_the_same(
    mask_mode: str, make_plmr: Make, make_batch: Batch
) -> None:
    model, batch = make_plmr("bert", mask_mode, min_selected=2), make_batch("bert", (24, 9, 5))
    decided = model(**batch)
    biases = torch.tensor(model.biases)[None, :, None].expand(3, -1, 24)
    noise = torch.stack([torch.zeros_like(biases), biases], dim=-1)  # what the biases add, as noise
    drawn = model.train()(**batch, noise=noise)
    assert torch.equal(drawn.mask, decided.mask.float())
    torch.testing.assert_close(drawn.logits, decided.logits, atol=2e-5, rtol=0)


@torch.no_grad()
def test_the_whole_input_is_read_after_the_full_layers_by_the_predictors_classifier(
    make_plmr: Make, make_batch: Batch
) -> None:
    for family in ("bert", "vit"):
        model, batch = make_plmr(family).train(), make_batch(family)
        encoder, (inputs, attention_mask) = model.generator.encoder, inputs_of(batch)
        hidden = encoder.assemble(encoder.embed(encoder.features(inputs)))
        output = encoder.layer_stack()[0](hidden, padding_bias(attention_mask))
        first = (output[0] if isinstance(output, tuple) else output)[:, 0]
        first = encoder.backbone.layernorm(first) if family == "vit" else first
        expected = model.predictor.classifier(first)
        torch.testing.assert_close(model.select(*inputs_of(batch), Sampling()).full_logits, expected)


@every_family
@every_mode
@torch.no_grad()
def test_a_saved_model_answers_alike_and_keeps_the_hubs_names(
    family: str, mask_mode: str, make_plmr: Make, make_batch: Batch, tmp_path: Path
) -> None:
    model, batch = make_plmr(family, mask_mode), make_batch(family)
    model.save_pretrained(tmp_path)
    loaded = RationaleModel.from_pretrained(tmp_path)
    assert isinstance(loaded, PLMRModel)
    assert loaded.biases == model.biases
    ours, theirs = model(**batch), loaded(**batch)
    for name in ("logits", "mask", "margin"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    names = load_file(str(tmp_path / "model.safetensors")).keys()
    path = "attention.attention.query.weight" if family == "vit" else "attention.self.query.weight"
    assert f"generator.encoder.backbone.encoder.layer.{SPLIT - 1}.{path}" in names
    assert f"predictor.encoder.backbone.encoder.layer.{LAYERS - SPLIT - 1}.{path}" in names
    assert not any("embedding_path" in name or "word_embeddings" in name for name in names if "generator" in name)


@torch.no_grad()
def test_calibration_goes_from_step_to_step(make_plmr: Make, make_batch: Batch) -> None:
    model = make_plmr("bert", "drop", target_ratio=0.25)
    batch = make_batch("bert", (24, 20, 15, 22))
    asked: list[tuple[float, int, tuple[Any, ...]]] = []

    def select_all() -> list[Any]:
        return [model.select(*inputs_of(batch))]

    def solve(found: list[Any], target: float, *how: Any) -> float:
        ((margin, feature, candidate, _),) = found
        asked.append((target, int(candidate.sum()), how))
        ordered = margin[candidate].sort(descending=True).values
        kept = round(target * int(feature.sum()))
        return -float(ordered[kept - 1 : kept + 1].mean())

    selections = model.calibrate(select_all, solve)
    features = 24 + 20 + 15 + 22 - 8
    shares = kept_shares(0.25, STEPS).tolist()
    assert [target for target, _, _ in asked] == pytest.approx(shares)
    assert [count for _, count, _ in asked] == [features, *(round(share * features) for share in shares[:-1])]
    assert [len(how) for _, _, how in asked] == [2, 2, 0]
    assert int((model.margin(selections[0]) > 0).sum()) == round(0.25 * features)
    assert torch.equal(model(**batch).mask, model.deterministic_mask(model.margin(selections[0]), selections[0]))


@given(st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=6))
def test_the_cascades_probabilities_are_products(margins: list[float]) -> None:
    values = torch.tensor(margins, dtype=torch.float32)[None, :, None].requires_grad_()
    log_selection = cascade(values)
    log_selection.sum().backward()
    assert torch.isfinite(log_selection).all()
    assert torch.isfinite(values.grad).all()
    exact = np.array(margins, np.float64)
    keep = np.exp(-np.logaddexp(0, -exact).sum())
    np.testing.assert_allclose(log_selection.exp().detach().numpy()[0, 0], [1 - keep, keep], atol=1e-5)
    np.testing.assert_allclose(log_selection[0, 0, 1].item(), -np.logaddexp(0, -exact).sum(), rtol=1e-5, atol=1e-5)


@given(st.floats(0.01, 1.0), st.integers(1, 8))
def test_the_schedule_falls_to_the_target(target: float, steps: int) -> None:
    shares = kept_shares(target, steps).numpy()
    e = np.e
    expected = [np.log((e**target * i + e * (steps - i)) / steps) for i in range(1, steps + 1)]
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    assert (np.diff([1.0, *shares]) <= 1e-6).all()
    assert shares[-1] == pytest.approx(target, abs=1e-6)

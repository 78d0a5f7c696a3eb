"""A row says the same in any batch; how masks are drawn in training, and what CLS and the control see."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.selection import NEVER_SELECTED

Make = Callable[..., RationaleModel]
Batch = Callable[..., dict[str, Tensor]]
TRANSFORMERS, NETS, IMAGES = ("bert", "roberta", "vit"), ("bilstm", "cnn", "resnet"), ("vit", "resnet")
MODES = ("zero", "drop", "zero-mean", "drop-mean")
VARIANTS = [*product(TRANSFORMERS, MODES), *product(NETS, ("zero",))]
every_family = pytest.mark.parametrize("family", [*TRANSFORMERS, *NETS])
text_family = pytest.mark.parametrize("family", ["bert", "roberta", "bilstm", "cnn"])
every_variant = pytest.mark.parametrize(("family", "mask_mode"), VARIANTS)
text_variant = pytest.mark.parametrize(("family", "mask_mode"), [v for v in VARIANTS if v[0] not in IMAGES])
every_mode = pytest.mark.parametrize("mask_mode", ["zero", "drop"])


@every_variant
@torch.no_grad()
def test_a_row_does_not_depend_on_its_batch_or_its_padding(
    family: str, mask_mode: str, make_model: Make, make_batch: Batch
) -> None:
    model = make_model(family, mask_mode)
    lengths = (12, 5, 3, 2)
    together = model(**make_batch(family, lengths, width=17))
    for row, length in enumerate(lengths):
        alone = {name: values[row : row + 1] for name, values in make_batch(family, lengths).items()}
        if family not in IMAGES:
            alone = {name: values[:, :length] for name, values in alone.items()}
        output = model(**alone)
        width = output.mask.shape[1]
        assert torch.equal(output.mask[0], together.mask[row, :width])
        assert not together.mask[row, width:].any()
        torch.testing.assert_close(output.margin[0], together.margin[row, :width], atol=2e-6, rtol=1e-6)
        torch.testing.assert_close(output.logits[0], together.logits[row], atol=2e-6, rtol=1e-6)


@text_variant
@torch.no_grad()
def test_rows_without_features_select_nothing_and_have_finite_logits(
    family: str, mask_mode: str, make_model: Make, make_batch: Batch
) -> None:
    model = make_model(family, mask_mode)
    for lengths in [(0, 2, 6), (0,), (2,)]:
        output = model(**make_batch(family, lengths))
        assert output.logits.isfinite().all()
        assert output.mask.sum(dim=1).tolist()[: lengths.count(0) + lengths.count(2)] == [0] * min(len(lengths), 2)
        assert (output.margin[~output.selection.feature] == NEVER_SELECTED).all()


@every_family
@torch.no_grad()
def test_cls_selects_every_feature(family: str, make_model: Make, make_batch: Batch) -> None:
    model, batch = make_model(family, method="cls"), make_batch(family)
    for training in (False, True):
        output = model.train(training)(**batch)
        assert torch.equal(output.mask, output.selection.feature)
        assert torch.equal(output.margin > 0, output.selection.feature)
        assert output.margin.isfinite().all()
        assert output.selection.logits is None
    if family not in IMAGES:
        assert output.selection.feature.sum(dim=1).tolist() == [7, 3, 1]  # class and separator tokens are none


@text_family
@torch.no_grad()
def test_training_samples_features_alone_unless_all_positions_count(
    family: str, make_model: Make, make_batch: Batch
) -> None:
    batch = make_batch(family, (4,) * 200, width=8)
    ours = make_model(family).train()(**batch)
    published = make_model(family, count_all_positions=True).train()(**batch)
    assert not (ours.mask * ~ours.selection.feature).any()
    assert (ours.mask[ours.selection.feature] == 1).any()
    sampled = published.mask.sum(dim=0)
    assert sampled[0] > 0  # the class token
    assert sampled[4:].min() > 0  # padding
    evaluated = make_model(family, count_all_positions=True)(**batch)
    assert not (evaluated.mask & ~evaluated.selection.feature).any()


@every_family
@torch.no_grad()
def test_training_masks_come_from_the_noise_and_temperature_given(
    family: str, make_model: Make, make_batch: Batch
) -> None:
    model, batch = make_model(family).train(), make_batch(family)
    logits = model(**batch).selection.logits
    noise = 3 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
    output = model(**batch, noise=noise, temperature=0.5)
    scaled = ((logits + noise) / 0.5).double().numpy()
    soft = np.exp(scaled[..., 1]) / np.exp(scaled).sum(axis=-1)
    np.testing.assert_allclose(output.selection.log_selection[..., 1].exp().numpy(), soft, atol=1e-5)
    assert np.array_equal(output.mask.numpy(), (soft > 0.5) & output.selection.feature.numpy())


@torch.no_grad()
def test_calibrated_bias_moves_every_margin(make_model: Make, make_batch: Batch) -> None:
    model, batch = make_model("bert"), make_batch("bert")
    before = model(**batch)
    model.config.margin_bias = 100.0
    after = model(**batch)
    assert torch.equal(after.mask, after.selection.feature)
    torch.testing.assert_close(after.margin[after.selection.feature], before.margin[before.selection.feature] + 100.0)


@torch.no_grad()
def test_control_classifies_from_random_masks_of_the_target_ratio(make_model: Make, make_batch: Batch) -> None:
    model, batch = make_model("bert", method="control"), make_batch("bert", (12,) * 40)
    assert model(**batch).mask.sum(dim=1).tolist() == [3] * 40  # 0.3 of 10 features
    assert model(**batch, random_ratio=0.5).mask.sum(dim=1).tolist() == [5] * 40
    assert not torch.equal(model(**batch).mask, model(**batch).mask)


@every_mode
def test_fixed_masks_are_the_deterministic_ones_and_teach_the_predictor_alone(
    mask_mode: str, make_model: Make, make_batch: Batch
) -> None:
    model, batch = make_model("bert", mask_mode), make_batch("bert")
    expected = model(**batch)
    model.train()
    output = model(**batch, fixed_masks=True)
    assert torch.equal(output.mask, expected.mask)
    torch.testing.assert_close(output.logits, expected.logits)
    output.logits.square().sum().backward()
    assert all(weight.grad is None for weight in model.generator.parameters())
    assert model.predictor.classifier[1].weight.grad.abs().sum() > 0


def test_a_fresh_head_can_begin_at_a_ratio(make_model: Make, make_batch: Batch) -> None:
    model, batch = make_model("bert"), make_batch("bert", (24,) * 8)
    model.generator.begin_at(0.1)
    with torch.no_grad():
        model.generator.head[-1].weight.mul_(0.01)
        torch.manual_seed(0)
        model.train()
        drawn = torch.stack([model(**batch).mask[:, 1:-1].mean() for _ in range(60)])
    assert drawn.mean() == pytest.approx(0.1, abs=0.02)

"""What a predictor may see, and that nothing else about a batch matters."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rekd_edge.errors import InputError
from rekd_edge.modeling import RationaleModel, RationaleOutput
from rekd_edge.modeling.encoders import encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import load_backbone
from rekd_edge.modeling.masking import padding_bias
from rekd_edge.modeling.selection import NEVER_SELECTED

Make = Callable[..., RationaleModel]
Batch = Callable[..., dict[str, Tensor]]

TRANSFORMERS, NETS, IMAGES = ("bert", "roberta", "vit"), ("bilstm", "cnn", "resnet"), ("vit", "resnet")
MODES = ("zero", "drop", "zero-mean", "drop-mean")
VARIANTS = [*product(TRANSFORMERS, MODES), *product(NETS, ("zero",))]
every_family = pytest.mark.parametrize("family", [*TRANSFORMERS, *NETS])
every_transformer = pytest.mark.parametrize("family", TRANSFORMERS)
text_family = pytest.mark.parametrize("family", ["bert", "roberta", "bilstm", "cnn"])
every_variant = pytest.mark.parametrize(("family", "mask_mode"), VARIANTS)
text_variant = pytest.mark.parametrize(("family", "mask_mode"), [v for v in VARIANTS if v[0] not in IMAGES])
every_drop = pytest.mark.parametrize(
    ("family", "mask_mode"), [variant for variant in VARIANTS if variant[1].startswith("drop")]
)
every_mode = pytest.mark.parametrize("mask_mode", ["zero", "drop"])


def inputs_of(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    return batch.get("input_ids", batch.get("pixel_values")), batch.get("attention_mask")


def classified(model: RationaleModel, inputs: Tensor, attention_mask: Tensor | None, mask: Tensor) -> Tensor:
    return model.classify(inputs, attention_mask, mask, model.select(inputs, attention_mask))


def assert_same(one: RationaleOutput, other: RationaleOutput) -> None:
    for name in ("logits", "mask", "margin"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


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


@every_variant
@torch.no_grad()
def test_saved_model_says_the_same_when_loaded(
    family: str, mask_mode: str, make_model: Make, make_batch: Batch, tmp_path: Path
) -> None:
    model, batch = make_model(family, mask_mode, margin_bias=0.25), make_batch(family)
    model.save_pretrained(tmp_path)
    loaded = RationaleModel.from_pretrained(tmp_path)
    assert not loaded.training
    assert loaded.config.margin_bias == 0.25
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert_same(model(**batch), loaded(**batch))


LAYER_NAMES = {
    "bert": [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ],
    "vit": [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
        "layernorm_before",
        "layernorm_after",
    ],
}


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_checkpoints_carry_the_names_of_the_hub_whatever_transformers_calls_them(
    family: str, make_model: Make, tmp_path: Path
) -> None:
    make_model(family).save_pretrained(tmp_path)
    names = {name for name in load_file(tmp_path / "model.safetensors") if ".layer." in name}
    assert names == {
        f"{tower}.encoder.backbone.encoder.layer.{layer}.{module}.{part}"
        for tower, layers in (("predictor", 2), ("generator", 1))
        for layer in range(layers)
        for module in LAYER_NAMES[family]
        for part in ("weight", "bias")
    }


def damage_nan(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["predictor.classifier.1.bias"][1] = torch.nan
    save_file(weights, folder / "model.safetensors")


def damage_truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def damage_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damage_geometry(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["labels"].append("d")
    (folder / "config.json").write_text(json.dumps(config))


def damage_names(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({f"model.{name}": weight for name, weight in weights.items()}, folder / "model.safetensors")


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 32}')


def damage_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"task": ')


def damage_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def damage_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_nan, "NaN"),
        (damage_truncated, "damaged"),
        (damage_missing, "missing"),
        (damage_geometry, "does not fit"),
        (damage_names, "does not fit"),
        (damage_config, "was not written by rekd-edge"),
        (damage_json, "was not written by rekd-edge"),
        (damage_list, "was not written by rekd-edge"),
        (damage_no_config, "not a finished run"),
    ],
)
def test_damaged_run_is_one_clear_error(
    damage: Callable[[Path], None], words: str, make_model: Make, tmp_path: Path
) -> None:
    make_model("bert").save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=words):
        RationaleModel.from_pretrained(tmp_path)


@every_variant
def test_shared_embeddings_are_one_and_are_saved_once(
    family: str, mask_mode: str, make_model: Make, make_batch: Batch, tmp_path: Path
) -> None:
    apart, shared = (make_model(family, mask_mode, share_embeddings=share) for share in (False, True))
    table = shared.predictor.encoder.embedding
    assert shared.generator.encoder.embedding is table
    sizes = [sum(weight.numel() for weight in model.parameters()) for model in (apart, shared)]
    assert sizes[0] - sizes[1] == sum(weight.numel() for weight in table.parameters())
    shared.save_pretrained(tmp_path)
    loaded = RationaleModel.from_pretrained(tmp_path)
    assert loaded.generator.encoder.embedding is loaded.predictor.encoder.embedding
    batch = make_batch(family)
    assert_same(shared(**batch), loaded(**batch))

    # the generator reads the predictor's table: apart, with a copy of it, the model says the same
    apart.load_state_dict(shared.state_dict(), strict=False)
    apart.generator.encoder.embedding.load_state_dict(table.state_dict())
    assert_same(shared(**batch), apart(**batch))


def test_embeddings_of_another_width_cannot_be_shared(make_model: Make) -> None:
    model = make_model("bert")
    wide = encoder_from_backbone(load_backbone("random:bert-tiny"))
    with pytest.raises(InputError, match=r"width 32 cannot share .* width 128"):
        model.generator.encoder.share_embedding(wide)


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


def test_a_fresh_head_can_begin_at_a_ratio(make_model: Make, make_batch: Batch) -> None:
    model, batch = make_model("bert"), make_batch("bert", (24,) * 8)
    model.generator.begin_at(0.1)
    with torch.no_grad():
        model.generator.head[-1].weight.mul_(0.01)
        torch.manual_seed(0)
        model.train()
        drawn = torch.stack([model(**batch).mask[:, 1:-1].mean() for _ in range(60)])
    assert drawn.mean() == pytest.approx(0.1, abs=0.02)

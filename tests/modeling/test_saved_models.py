"""A saved model says the same when it is loaded, and a damaged one is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rekd_edge.errors import InputError
from rekd_edge.modeling import RationaleModel, RationaleOutput
from rekd_edge.modeling.encoders import encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import load_backbone

Make = Callable[..., RationaleModel]
Batch = Callable[..., dict[str, Tensor]]
TRANSFORMERS, NETS, IMAGES = ("bert", "roberta", "vit"), ("bilstm", "cnn", "resnet"), ("vit", "resnet")
MODES = ("zero", "drop", "zero-mean", "drop-mean")
VARIANTS = [*product(TRANSFORMERS, MODES), *product(NETS, ("zero",))]
every_variant = pytest.mark.parametrize(("family", "mask_mode"), VARIANTS)


def assert_same(one: RationaleOutput, other: RationaleOutput) -> None:
    for name in ("logits", "mask", "margin"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


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

"""Backbones from every source, cut to layers and fitted to inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel

from rekd_edge.errors import InputError
from rekd_edge.modeling.encoders import build_encoder, encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import (
    RANDOM_BACKBONES,
    backbone_config,
    backbone_image_settings,
    backbone_tokenizer,
    load_backbone,
)

MODELS = Path(__file__).parents[2] / "../shared/models"
needs_models = pytest.mark.skipif(not MODELS.exists(), reason="pretrained backbones in ../shared are not present")
every_family = pytest.mark.parametrize("family", ["bert", "roberta", "vit"])

Folder = Callable[[str], Path]


@pytest.fixture
def weights_folder(config_folder: Folder) -> Callable[..., tuple[Path, nn.Module]]:
    """A folder as `save_pretrained` leaves it, pooler included, and the model that it holds."""

    def write(family: str, dtype: torch.dtype = torch.float32) -> tuple[Path, nn.Module]:
        torch.manual_seed(5)
        folder = config_folder(family)
        model = AutoModel.from_config(backbone_config(str(folder))).to(dtype)
        model.save_pretrained(folder)
        return folder, model

    return write


@every_family
def test_weights_of_a_local_folder_are_loaded(family: str, weights_folder: Callable) -> None:
    folder, saved = weights_folder(family)
    loaded = load_backbone(str(folder)).state_dict()
    assert not any("pooler" in name for name in loaded)
    for name, weight in loaded.items():
        assert torch.equal(weight, saved.state_dict()[name]), name


@every_family
def test_kept_layers_are_the_first_of_the_source(family: str, weights_folder: Callable) -> None:
    folder, saved = weights_folder(family)
    kept = encoder_from_backbone(load_backbone(str(folder), layers=1))
    assert len(kept.layer_stack()) == kept.config.num_hidden_layers == 1
    for name, weight in kept.backbone.state_dict().items():
        assert torch.equal(weight, saved.state_dict()[name]), name


@every_family
def test_weights_are_float32_whatever_the_file_holds(family: str, weights_folder: Callable) -> None:
    folder, saved = weights_folder(family, torch.float16)
    loaded = load_backbone(str(folder))
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, saved.state_dict()[name].float()), name
    rebuilt = build_encoder(json.loads(json.dumps(loaded.config.to_dict(), default=str)))
    assert {weight.dtype for weight in rebuilt.parameters()} == {torch.float32}


@every_family
def test_folder_without_weights_gives_random_ones(family: str, config_folder: Folder) -> None:
    first, second = (load_backbone(str(config_folder(family)), layers=1) for _ in range(2))
    assert first.config.num_hidden_layers == 1
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


@pytest.mark.parametrize("name", RANDOM_BACKBONES)
def test_named_geometries_have_the_size_that_they_promise(name: str) -> None:
    config = backbone_config(f"random:{name}")
    assert config.model_type == RANDOM_BACKBONES[name]["model_type"]
    assert config.hidden_size % config.num_attention_heads == 0
    if "nano" in name:
        assert len(encoder_from_backbone(load_backbone(f"random:{name}")).layer_stack()) == config.num_hidden_layers


def test_random_encoder_takes_the_vocabulary_of_the_tokenizer() -> None:
    assert load_backbone("random:bert-nano", vocabulary=77).embeddings.word_embeddings.weight.shape[0] == 77


def test_positions_of_an_image_of_the_same_size_are_unchanged(weights_folder: Callable) -> None:
    folder, saved = weights_folder("vit")
    loaded = load_backbone(str(folder), image_size=12)
    assert torch.equal(loaded.embeddings.position_embeddings, saved.embeddings.position_embeddings)


@pytest.mark.parametrize("size", [8, 20])
def test_positions_of_another_image_size_are_those_that_transformers_interpolates(
    size: int, weights_folder: Callable
) -> None:
    folder, saved = weights_folder("vit")
    loaded = load_backbone(str(folder), image_size=size)
    grid = size // 4
    theirs = saved.embeddings.interpolate_pos_encoding(torch.empty(1, 1 + grid**2, 32), size, size)
    ours = loaded.embeddings.position_embeddings
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours[:, 0], saved.embeddings.position_embeddings[:, 0])  # the class token's
    encoder = encoder_from_backbone(loaded)
    hidden = encoder.assemble(encoder.embed(encoder.features(torch.zeros(2, 3, size, size))))
    assert encoder.layers(hidden, None).shape == (2, 1 + grid**2, 32)


def test_longer_texts_get_positions_interpolated_along_the_line(weights_folder: Callable) -> None:
    folder, saved = weights_folder("bert")
    old = saved.embeddings.position_embeddings.weight.detach().numpy()  # [24, 32]
    new = load_backbone(str(folder), max_length=60).embeddings.position_embeddings.weight.detach().numpy()
    place = (np.arange(60) + 0.5) * 24 / 60 - 0.5  # cell centres
    expected = np.stack([np.interp(place, np.arange(24), column) for column in old.T], axis=1)
    np.testing.assert_allclose(new, expected, atol=1e-5)


@pytest.mark.parametrize("max_length", [5, 24])
def test_shorter_texts_keep_the_table_of_positions(max_length: int, weights_folder: Callable) -> None:
    folder, saved = weights_folder("bert")
    loaded = load_backbone(str(folder), max_length=max_length)
    assert torch.equal(loaded.embeddings.position_embeddings.weight, saved.embeddings.position_embeddings.weight)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("max_length", [24, 25, 26, 40])
def test_a_text_of_the_longest_length_has_a_position_for_every_token(
    family: str, max_length: int, weights_folder: Callable
) -> None:
    folder, _ = weights_folder(family)
    encoder = encoder_from_backbone(load_backbone(str(folder), max_length=max_length))
    hidden = encoder.assemble(encoder.embed(encoder.features(torch.full((1, max_length), 7))))
    assert encoder.layers(hidden, None).isfinite().all()
    # every position its own embedding
    assert len(torch.unique(hidden[0], dim=0)) == max_length


@every_family
@torch.no_grad()
def test_encoder_taken_apart_says_what_the_whole_says(
    family: str, weights_folder: Callable, make_batch: Callable
) -> None:
    folder, saved = weights_folder(family)
    encoder, batch = encoder_from_backbone(load_backbone(str(folder))).eval(), make_batch(family)
    mask = batch.get("attention_mask")
    bias = None if mask is None else (1.0 - mask[:, None, None, :].float()) * -1e30
    hidden = encoder.layers(
        encoder.assemble(encoder.embed(encoder.features(batch.get("input_ids", batch.get("pixel_values"))))), bias
    )
    real = slice(None) if mask is None else mask == 1
    torch.testing.assert_close(hidden[real], saved.eval()(**batch).last_hidden_state[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", [0, -1, 3])
@every_family
def test_more_layers_than_there_are_is_an_error(family: str, layers: int, config_folder: Folder) -> None:
    with pytest.raises(InputError, match="has 2 layers"):
        load_backbone(str(config_folder(family)), layers=layers)


def test_unknown_geometry_names_those_that_exist() -> None:
    with pytest.raises(InputError, match="bert-mini"):
        backbone_config("random:bert-enormous")


def test_folder_without_config_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no config\.json"):
        load_backbone(str(tmp_path))


def test_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_backbone(str(tmp_path / "not" / "there"))


@pytest.mark.parametrize("content", ["{", "[]", '{"hidden_size": 3}', '{"model_type": "no-such-family"}'])
def test_unreadable_config_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError):
        load_backbone(str(tmp_path))


def test_unknown_family_is_an_error_that_names_the_known(tmp_path: Path) -> None:
    geometry = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deit", **geometry}))
    with pytest.raises(InputError, match="bert, roberta, vit"):
        encoder_from_backbone(load_backbone(str(tmp_path)))


def test_damaged_weights_are_an_error(weights_folder: Callable) -> None:
    folder, _ = weights_folder("bert")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be loaded"):
        load_backbone(str(folder))


def test_weights_that_leave_a_layer_untrained_are_an_error(weights_folder: Callable) -> None:
    folder, _ = weights_folder("bert")
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lack"):
        load_backbone(str(folder))


def test_tokenizer_that_outgrows_the_weights_is_an_error(weights_folder: Callable) -> None:
    folder, _ = weights_folder("bert")
    load_backbone(str(folder), vocabulary=50)
    with pytest.raises(InputError, match="51 entries"):
        load_backbone(str(folder), vocabulary=51)


def test_backbones_without_a_tokenizer_have_none(config_folder: Folder) -> None:
    assert backbone_tokenizer("random:bert-nano") is None
    assert backbone_tokenizer(str(config_folder("bert"))) is None


def test_image_settings_are_those_of_the_processor(config_folder: Folder) -> None:
    folder = config_folder("vit")
    config = backbone_config(str(folder))
    plain = backbone_image_settings(str(folder), config, None)
    assert (plain.height, plain.width, plain.patch_size, plain.mean) == (12, 12, 4, (0.5, 0.5, 0.5))
    processor = {"resample": 2, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": 224}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    read = backbone_image_settings(str(folder), config, 20)
    assert (read.height, read.resample, read.mean, read.std) == (20, 2, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    with pytest.raises(InputError, match="multiple of the patch"):
        backbone_image_settings(str(folder), config, 13)


@needs_models
@torch.no_grad()
def test_pretrained_text_backbone_reads_as_transformers_reads_it() -> None:
    name = str(MODELS / "all-MiniLM-L6-v2")
    theirs = AutoModel.from_pretrained(name, dtype=torch.float32).eval()
    encoder = encoder_from_backbone(load_backbone(name)).eval()
    input_ids = torch.tensor([backbone_tokenizer(name).encode("A film without a plot, and all the better for it.").ids])
    ours = encoder.layers(encoder.assemble(encoder.embed(encoder.features(input_ids))), None)
    torch.testing.assert_close(ours, theirs(input_ids).last_hidden_state, atol=1e-5, rtol=1e-4)


@needs_models
@torch.no_grad()
def test_pretrained_image_backbone_reads_smaller_images() -> None:
    name = str(MODELS / "deit-tiny-patch16-224")
    theirs = AutoModel.from_pretrained(name, dtype=torch.float32).eval()
    encoder = encoder_from_backbone(load_backbone(name, image_size=96)).eval()
    pixels = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    ours = encoder.layers(encoder.assemble(encoder.embed(encoder.features(pixels))), None)
    expected = theirs(pixels, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert backbone_image_settings(name, encoder.config, 96).mean != (0.5, 0.5, 0.5)

"""Nets of other families on a transformer's features: what they compute, by equations stated another way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModel

from rekd_edge.errors import InputError
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.encoders import Encoder, build_encoder, encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import (
    backbone_config,
    backbone_from_config,
    backbone_image_settings,
    backbone_tokenizer,
    load_backbone,
)
from rekd_edge.modeling.encoders.convolutional import neighbours
from rekd_edge.modeling.encoders.encoder import FLOOR

NETS = {"bilstm": ("bert", "roberta"), "cnn": ("bert", "roberta"), "resnet": ("vit",)}
PAIRS = [(family, donor) for family, donors in NETS.items() for donor in donors]
every_net = pytest.mark.parametrize("family", NETS)
every_pair = pytest.mark.parametrize(("family", "donor"), PAIRS)
text_net = pytest.mark.parametrize("family", ["bilstm", "cnn"])
TEXT_LENGTHS = torch.tensor([7, 1, 4, 0])


@pytest.fixture
def donor_folder(config_folder: Callable[[str], Path]) -> Callable[[str], tuple[Path, nn.Module]]:
    """A folder with weights, and the transformer that it holds."""

    def write(donor: str) -> tuple[Path, nn.Module]:
        torch.manual_seed(5)
        folder = config_folder(donor)
        model = AutoModel.from_config(backbone_config(str(folder)))
        model.save_pretrained(folder)
        return folder, model

    return write


@pytest.fixture
def make_encoder(make_spec: Callable[[str], str]) -> Callable[..., Encoder]:
    """A tiny encoder in `eval()`."""

    def make(family: str, layers: int | None = None) -> Encoder:
        torch.manual_seed(3)
        return encoder_from_backbone(load_backbone(make_spec(family), layers)).eval()

    return make


def padding_bias(lengths: Tensor, width: int) -> Tensor:
    return (torch.arange(width) >= lengths[:, None])[:, None, None].float() * -1e30


@every_pair
def test_embeddings_are_the_donors(family: str, donor: str, donor_folder: Callable) -> None:
    folder, transformer = donor_folder(donor)
    encoder = encoder_from_backbone(load_backbone(f"{family}:{folder}"))
    embeddings = transformer.embeddings
    theirs = embeddings.patch_embeddings.projection if donor == "vit" else embeddings.word_embeddings
    ours = encoder.embedding.state_dict()
    assert ours.keys() == theirs.state_dict().keys()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours[name], weight)
    assert encoder.hidden_size == 32


@every_net
def test_depth_is_a_nets_own(family: str, make_spec: Callable[[str], str]) -> None:
    assert load_backbone(make_spec(family)).config.num_hidden_layers == {"bilstm": 1, "cnn": 2, "resnet": 2}[family]
    assert len(load_backbone(make_spec(family), layers=5).layers) == 5  # the donor has two
    with pytest.raises(InputError, match="0 are none"):
        load_backbone(make_spec(family), layers=0)


@every_net
@torch.no_grad()
def test_a_saved_configuration_builds_the_same_encoder(family: str, make_encoder: Callable, make_batch) -> None:
    encoder = make_encoder(family, 2)
    rebuilt = build_encoder(json.loads(json.dumps(encoder.config.to_dict(), default=str))).eval()
    rebuilt.load_state_dict(encoder.state_dict())
    inputs = next(iter(make_batch(family).values()))
    ours, theirs = (e.layers(e.assemble(e.embed(e.features(inputs))), None) for e in (encoder, rebuilt))
    assert torch.equal(ours, theirs)


def test_fresh_tables_take_the_vocabulary_of_the_tokenizer() -> None:
    assert load_backbone("cnn:random:bert-nano", vocabulary=77).embedding.weight.shape == (77, 64)


def test_a_vocabulary_larger_than_the_donors_is_refused(donor_folder: Callable) -> None:
    folder, _ = donor_folder("bert")
    with pytest.raises(InputError, match="51 entries"):
        load_backbone(f"bilstm:{folder}", vocabulary=51)


def test_tokenizer_and_image_settings_are_the_donors(donor_folder: Callable) -> None:
    from tokenizers import Tokenizer, models

    words, _ = donor_folder("bert")
    assert backbone_tokenizer(f"cnn:{words}") is backbone_tokenizer("bilstm:random:bert-nano") is None
    Tokenizer(models.WordPiece({"[UNK]": 0, "good": 1}, unk_token="[UNK]")).save(str(words / "tokenizer.json"))
    assert backbone_tokenizer(f"bilstm:{words}").get_vocab() == {"[UNK]": 0, "good": 1}
    patches, _ = donor_folder("vit")
    (patches / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3]}))
    name = f"resnet:{patches}"
    settings = backbone_image_settings(name, backbone_config(name), 20)
    assert (settings.height, settings.patch_size, settings.mean) == (20, 4, (0.1, 0.2, 0.3))
    encoder = encoder_from_backbone(load_backbone(name, image_size=20))
    hidden = encoder.assemble(encoder.embed(encoder.features(torch.zeros(2, 3, 20, 20))))
    assert encoder.layers(hidden, None).shape == (2, 25, 32)


@pytest.mark.parametrize(
    ("spec", "mend"),
    [
        ("bilstm:random:vit-nano", "give --backbone resnet:random:vit-nano"),
        ("cnn:random:vit-nano", "give --backbone resnet:random:vit-nano"),
        ("resnet:random:bert-nano", "give --backbone bilstm:random:bert-nano or cnn:random:bert-nano"),
        ("cnn:cnn:random:bert-nano", "cnn: and such a backbone"),
        ("bilstm:random:bert-enormous", "choose from"),
        ("gru:random:bert-nano", "after bilstm:, cnn:, resnet:, local:"),
    ],
)
def test_features_that_a_family_cannot_read_are_refused(spec: str, mend: str) -> None:
    with pytest.raises(InputError, match=mend):
        backbone_config(spec)


@every_net
def test_features_cannot_be_dropped(family: str, make_model: Callable[..., RationaleModel]) -> None:
    with pytest.raises(InputError, match="set mask_mode=zero"):
        make_model(family, "drop")


@torch.no_grad()
def test_a_bilstm_is_an_lstm_on_each_text_without_padding(make_encoder: Callable) -> None:
    encoder = make_encoder("bilstm", 2)
    hidden = torch.randn(4, 9, 32)
    found = encoder.layers(hidden, padding_bias(TEXT_LENGTHS, 9))
    assert found.isfinite().all()
    for row, length in enumerate(TEXT_LENGTHS):
        expected = hidden[row : row + 1, :length]
        for lstm in encoder.layer_stack() if length else ():
            expected, _ = lstm(expected)
        torch.testing.assert_close(found[row, :length], expected[0])


@torch.no_grad()
def test_a_cnn_is_a_convolution_on_each_text_without_padding(make_encoder: Callable) -> None:
    encoder = make_encoder("cnn", 2)
    hidden = torch.randn(4, 9, 32)
    found = encoder.layers(hidden, padding_bias(TEXT_LENGTHS, 9))
    assert found.isfinite().all()
    for row, length in enumerate(TEXT_LENGTHS):
        line = hidden[row, :length].T[None]  # [1, hidden, tokens]
        for linear in encoder.layer_stack() if length else ():
            kernel = linear.weight.unflatten(1, (3, 32)).transpose(1, 2)  # [out, in, 3]
            line = line + nn.functional.gelu(nn.functional.conv1d(line, kernel, linear.bias, padding=1))
        torch.testing.assert_close(found[row, :length], line[0].T, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_resnet_is_a_convolution_on_the_patch_grid(make_encoder: Callable) -> None:
    encoder = make_encoder("resnet", 2)
    embeddings = torch.randn(2, 9, 32)
    image = (embeddings.unflatten(1, (3, 3)) + encoder.backbone.positions).permute(0, 3, 1, 2)
    for linear in encoder.layer_stack():
        kernel = linear.weight.unflatten(1, (3, 3, 32)).permute(0, 3, 2, 1)  # rows are gathered first
        image = image + nn.functional.gelu(nn.functional.conv2d(image, kernel, linear.bias, padding=1))
    expected = image.permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(encoder.layers(encoder.assemble(embeddings), None), expected, atol=1e-5, rtol=1e-5)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1))
def test_neighbours_are_zero_beyond_the_border_alone(rows: int, columns: int, axis: int) -> None:
    grid = 1.0 + torch.arange(rows * columns).view(1, rows, columns, 1)  # no place is 0
    found = neighbours(grid, 1 + axis)
    for row in range(rows):
        for column in range(columns):
            for part, step in enumerate((-1, 0, 1)):
                r, c = (row + step, column) if axis == 0 else (row, column + step)
                inside = 0 <= r < rows and 0 <= c < columns
                assert found[0, row, column, part] == (grid[0, r, c, 0] if inside else 0)


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_a_classifier_reads_the_normalised_mean_of_what_is_visible(seen: list[bool]) -> None:
    encoder = encoder_from_backbone(backbone_from_config(backbone_config("cnn:random:bert-nano")))
    hidden = torch.randn(1, len(seen), 64, dtype=torch.float64)
    visible = torch.tensor([seen]).double().requires_grad_()
    pooled = encoder.pool(hidden, visible)
    mean = hidden[0, torch.tensor(seen)].sum(dim=0) / max(sum(seen), 1)
    expected = (mean - mean.mean()) / (mean.var(correction=0) + FLOOR).sqrt()
    torch.testing.assert_close(pooled[0], expected)
    assert torch.autograd.gradcheck(lambda mask: encoder.pool(hidden, mask), (visible.detach() + 0.6).requires_grad_())
    pooled[0, 0].backward()
    assert visible.grad.isfinite().all()


@text_net
@torch.no_grad()
def test_padding_that_was_sampled_is_not_seen(family: str, make_model: Callable, make_batch: Callable) -> None:
    """As `count_all_positions` samples it in training."""
    model, batch = make_model(family), make_batch(family, (4, 9))
    inputs, attention_mask = batch["input_ids"], batch["attention_mask"]
    everywhere = torch.ones_like(inputs).float()
    selection = model.select(inputs, attention_mask)
    logits = model.classify(inputs, attention_mask, everywhere, selection)
    within = model.classify(inputs, attention_mask, everywhere * attention_mask, selection)
    torch.testing.assert_close(logits, within)


@every_net
def test_the_mask_gets_a_gradient_of_the_embeddings_own_size(
    family: str, make_model: Callable, make_batch: Callable
) -> None:
    """Normalising after masking would make it vanish at 1 and explode at 0."""
    model, batch = make_model(family), make_batch(family)
    inputs = next(iter(batch.values()))
    _, special = model.feature_positions(inputs, batch.get("attention_mask"))
    visible = torch.zeros(special.shape)
    visible[:, 1::2] = 1
    visible.requires_grad_()
    bias = padding_bias(batch["attention_mask"].sum(1), inputs.shape[1]) if "attention_mask" in batch else None
    model.predictor(inputs, visible, bias)[:, 0].sum().backward()
    gradient = visible.grad[0].abs()
    assert gradient.max() < 10
    assert gradient[::2].mean() > 1e-4
    assert gradient[1::2].mean() > 1e-4

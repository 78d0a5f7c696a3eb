"""A local generator selects from what lies within its reach, on the predictor's embeddings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rekd_edge.errors import InputError
from rekd_edge.modeling import Depth, RationaleConfig, RationaleModel
from rekd_edge.modeling.encoders import Encoder, encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import load_backbone
from rekd_edge.runtime.image import ImageSettings

CLS, SEP = 2, 3
TOKENS = 40
MakeLocal = Callable[..., RationaleModel]


@pytest.fixture(scope="module")
def make_local(config_folder: Callable[[str], Path]) -> MakeLocal:
    """A model in `eval()` whose predictor is a transformer and whose generator is local."""

    def make(family: str, mask_mode: str = "drop", layers: int | None = None, context: bool = False) -> RationaleModel:
        torch.manual_seed(0)
        folder, image = config_folder(family), family == "vit"

        def encoder(layers: int | None, generator_family: str | None = None) -> Encoder:
            name = str(folder) if generator_family is None else f"{generator_family}:{folder}"
            built = load_backbone(name, layers, max_length=None if image else TOKENS)
            if generator_family is not None and context:
                built.config.context = True
                built = type(built)(built.config)
            return encoder_from_backbone(built)

        config = RationaleConfig(
            task="image" if image else "text",
            method="re",
            labels=["a", "b"],
            predictor={},
            head_hidden=None if image else 16,
            head_dropout=0.0,
            mask_mode=mask_mode,
            target_ratio=0.3,
            max_length=None if image else TOKENS,
            special_token_ids=[] if image else [CLS, SEP],
            image=ImageSettings(12, 12, 4, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3).to_dict() if image else None,
        )
        model = RationaleModel.build(config, encoder, Depth(2, layers, "local"), None)
        with torch.no_grad():
            for weight in model.parameters():  # far enough from 0 that what a layer sees shows in what it says
                weight.copy_(0.3 * torch.randn(weight.shape) + (weight if weight.dim() == 1 else 0))
        return model.eval()

    return make


def margins(model: RationaleModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).margin


@settings(max_examples=25, deadline=None)
@given(place=st.integers(1, TOKENS - 2), layers=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_a_token_changes_margins_within_the_reach_alone(
    place: int, layers: int, seed: int, make_local: MakeLocal
) -> None:
    model = make_local("bert", layers=layers)
    reach = {1: 1, 2: 3, 3: 7}[layers]
    ids = torch.randint(5, 50, (1, TOKENS), generator=torch.Generator().manual_seed(seed))
    ids[0, 0], ids[0, -1] = CLS, SEP
    changed = ids.clone()
    changed[0, place] = 4 + (ids[0, place] - 3) % 46

    moved = (margins(model, ids) != margins(model, changed))[0].nonzero()[:, 0]

    assert model.generator.encoder.reach == reach
    assert place in moved
    assert (moved - place).abs().max() <= reach


@settings(max_examples=25, deadline=None)
@given(place=st.integers(1, TOKENS - 2), seed=st.integers(0, 2**16))
def test_whole_words_add_the_rest_of_a_word_to_the_reach(place: int, seed: int, make_local: MakeLocal) -> None:
    model = make_local("bert", layers=2)
    model.starts_word = torch.arange(model.predictor.encoder.config.vocab_size) % 3 != 0
    ids = torch.randint(4, 50, (1, TOKENS), generator=torch.Generator().manual_seed(seed))
    ids[0, 0], ids[0, -1] = CLS, SEP
    changed = ids.clone()
    changed[0, place] = 4 + (ids[0, place] - 4 + 3) % 45  # another piece that begins a word if this one does

    moved = (margins(model, ids) != margins(model, changed))[0].nonzero()[:, 0].tolist()

    words = model.starts_word[ids[0]].cumsum(0).tolist()
    near = {words[i] for i in range(1, TOKENS - 1) if abs(i - place) <= 3}
    assert place in moved
    assert {words[i] for i in moved} <= near


def test_the_reach_is_used_to_its_end(make_local: MakeLocal) -> None:
    model = make_local("bert", layers=3)
    ids = torch.arange(5, 5 + TOKENS)[None] % 45 + 4
    farthest = 0
    for token in range(4, 50):
        changed = ids.clone()
        changed[0, 20] = token
        moved = (margins(model, ids) != margins(model, changed))[0].nonzero()[:, 0]
        farthest = max([farthest, *(moved - 20).abs().tolist()])
    assert farthest == 7


def test_a_patch_changes_margins_within_the_reach_alone(make_local: MakeLocal) -> None:
    model = make_local("vit", layers=1)
    pixels = torch.randn(1, 3, 12, 12)
    changed = pixels.clone()
    changed[:, :, :4, :4] += 1.0  # the first of 3 x 3 patches
    with torch.no_grad():
        moved = (model(pixel_values=pixels).margin != model(pixel_values=changed).margin)[0].view(3, 3)
    assert moved[:2, :2].all()
    assert not moved[2].any()
    assert not moved[:, 2].any()


def test_context_lets_every_token_change_every_margin(make_local: MakeLocal) -> None:
    model = make_local("bert", layers=1, context=True)
    ids = torch.arange(5, 5 + TOKENS)[None] % 45 + 4
    changed = ids.clone()
    changed[0, 1] = 49
    assert model.generator.encoder.reach is None
    assert (margins(model, ids) != margins(model, changed)).all()


@pytest.mark.parametrize("context", [False, True])
def test_padding_changes_nothing(context: bool, make_local: MakeLocal) -> None:
    model = make_local("bert", context=context)
    ids = torch.randint(5, 50, (1, 20))
    padded = torch.nn.functional.pad(ids, (0, 11), value=7)
    attention = torch.nn.functional.pad(torch.ones_like(ids), (0, 11))
    with torch.no_grad():
        alone = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        beside = model(input_ids=padded, attention_mask=attention)
    assert torch.allclose(alone.margin, beside.margin[:, :20], atol=1e-5)
    assert torch.equal(alone.mask, beside.mask[:, :20])
    assert torch.allclose(alone.logits, beside.logits, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "vit"])
@pytest.mark.parametrize("mask_mode", ["zero", "drop"])
def test_a_saved_model_loads_the_same(family: str, mask_mode: str, make_local: MakeLocal, tmp_path: Path) -> None:
    model = make_local(family, mask_mode)
    model.save_pretrained(tmp_path)
    loaded = RationaleModel.from_pretrained(tmp_path)
    inputs = {"pixel_values": torch.randn(2, 3, 12, 12)}
    if family != "vit":
        ids = torch.randint(5, 50, (2, 12))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        before, after = model(**inputs), loaded(**inputs)
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.margin, after.margin)


def test_both_towers_read_one_table(make_local: MakeLocal) -> None:
    model = make_local("bert")
    assert model.generator.encoder.embedding is model.predictor.encoder.embedding
    assert not any("generator.encoder.backbone.embedding" in name for name in model.state_dict())


def test_dropping_images_embeds_before_it_gathers_with_the_same_answer(make_local: MakeLocal) -> None:
    model = make_local("vit")
    pixels = torch.randn(3, 3, 12, 12)
    with torch.no_grad():
        first = model(pixel_values=pixels).logits
        model.predictor.embeds_first = False
        assert torch.allclose(first, model(pixel_values=pixels).logits, atol=1e-6)


def test_a_predictor_of_another_width_is_refused(config_folder: Callable[[str], Path]) -> None:
    local = encoder_from_backbone(load_backbone("local:random:bert-nano"))
    with pytest.raises(InputError, match="width 64 cannot share the embeddings of a predictor of width 32"):
        local.share_embedding(encoder_from_backbone(load_backbone(str(config_folder("bert")))))

"""Training texts are read as before from fewer pieces, and a trimmed bundle answers them as before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from rekd_edge.data import DataSettings, Examples, load_data
from rekd_edge.errors import InputError
from rekd_edge.export.vocabulary import trim_vocabulary, trimming_effect
from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.modeling.encoders import encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import load_backbone
from rekd_edge.runtime.text import encode_texts, limit_tokenizer, load_tokenizer
from rekd_edge.training.preparation import Preprocessing

Run = Callable[..., Path]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SHARED = Path(__file__).resolve().parents[2] / "../shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="real data and backbones in ../shared are not present")
TEMPLATE = {
    "single": "[CLS] $A [SEP]",
    "pair": "[CLS] $A [SEP] $B:1 [SEP]:1",
}


def reading(pieces: Sequence[str], max_length: int = 16, processor: str = "template") -> Preprocessing:
    """WordPiece of the special tokens and these pieces, in this order."""
    ids = {piece: i for i, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    named = {token: (token, ids[token]) for token in ("[CLS]", "[SEP]")}
    template = processors.TemplateProcessing(**TEMPLATE, special_tokens=list(named.values()))
    tokenizer.post_processor = {
        "template": template,
        "bert": processors.BertProcessing(named["[SEP]"], named["[CLS]"]),
        "sequence": processors.Sequence([processors.ByteLevel(trim_offsets=False), template]),
    }[processor]
    return Preprocessing(limit_tokenizer(tokenizer, max_length), max_length)


def tokens_of(preprocessing: Preprocessing, text: str) -> list[str]:
    assert preprocessing.tokenizer is not None
    return encode_texts(preprocessing.tokenizer, [text])[0].tokens[1:-1]


def assert_read_alike(whole: Preprocessing, fewer: Preprocessing, kept: np.ndarray, texts: Sequence[str]) -> None:
    for was, row in zip(encode_texts(whole.tokenizer, texts), encode_texts(fewer.tokenizer, texts), strict=True):
        assert (row.tokens, row.offsets, row.feature) == (was.tokens, was.offsets, was.feature)
        assert kept[row.ids].tolist() == was.ids


@pytest.fixture(scope="session")
def model(make_run: Run) -> RationaleModel:
    """Random weights, with special tokens 2 and 3 and more rows than any vocabulary here has pieces."""
    return RationaleModel.from_pretrained(make_run("text", "drop"))


@pytest.fixture(scope="session")
def whole(make_run: Run) -> Preprocessing:
    """What `model` was trained with."""
    return Preprocessing(load_tokenizer(make_run("text", "drop") / "tokenizer.json", 32), 32)


# pieces over two letters overlap in every way, so that words are cut by the length and many are unknown
PIECES = [prefix + "".join(letters) for n in (1, 2, 3) for letters in product("ab", repeat=n) for prefix in ("", "##")]
vocabularies = st.lists(st.sampled_from(PIECES), max_size=12)
corpora = st.lists(st.lists(st.text("ab", min_size=1, max_size=6), max_size=4).map(" ".join), min_size=1, max_size=4)


@given(pieces=vocabularies, texts=corpora, max_length=st.integers(3, 8))
def test_training_texts_keep_their_pieces(
    model: RationaleModel, pieces: list[str], texts: list[str], max_length: int
) -> None:
    before = reading(pieces, max_length)
    trimmed = trim_vocabulary(model, before, texts)
    assert_read_alike(before, trimmed.preprocessing, trimmed.kept, texts)


def test_an_unknown_word_stays_unknown(model: RationaleModel) -> None:
    """Without `abc`, which fits before nothing does, `abcd` would become `ab ##cd`."""
    before = reading(["abc", "ab", "##cd", "ef"])
    trimmed = trim_vocabulary(model, before, ["abcd ab efcd"])
    assert tokens_of(trimmed.preprocessing, "abcd") == ["[UNK]"]


def test_a_word_that_is_cut_keeps_its_end(model: RationaleModel) -> None:
    """Without `##cd`, which no text holds within its length, the whole word would become unknown."""
    before = reading(["ab", "##cd", "##ef"], max_length=3)
    trimmed = trim_vocabulary(model, before, ["abcdef efg"])
    assert tokens_of(trimmed.preprocessing, "abcdef") == ["ab"]


def test_a_piece_that_is_gone_falls_apart(model: RationaleModel) -> None:
    letters = [*"goodnesé", *(f"##{letter}" for letter in "goodnesé")]
    before = reading([*letters, "good", "##ness", "##nes"])
    before.tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    trimmed = trim_vocabulary(model, before, ["good"])
    assert tokens_of(before, "goodness é") == ["good", "##ness", "é"]
    # single letters of ASCII stay, others only where a training text has them
    assert tokens_of(trimmed.preprocessing, "goodness é") == ["good", "##n", "##e", "##s", "##s", "[UNK]"]
    assert tokens_of(trim_vocabulary(model, before, ["é"]).preprocessing, "gé") == ["g", "##é"]


@pytest.mark.parametrize("processor", ["template", "bert", "sequence"])
def test_special_and_added_tokens_are_kept(model: RationaleModel, processor: str) -> None:
    before = reading(["never", "good"], processor=processor)
    before.tokenizer.add_tokens(["<film>"])
    trimmed = trim_vocabulary(model, before, ["good"]).preprocessing
    vocabulary = trimmed.tokenizer.get_vocab()
    assert vocabulary == {**{token: i for i, token in enumerate(SPECIAL)}, "good": 5, "<film>": 6}
    assert trimmed.tokenizer.encode("good <film>").ids == [2, 5, 6, 3]
    assert trimmed.tokenizer.encode("good", "[SEP]").ids[-1] == 3
    assert tokens_of(trimmed, "[SEP]") == tokens_of(before, "[SEP]")  # user text is text


def test_special_tokens_may_stand_anywhere(model: RationaleModel) -> None:
    """As in BERT's own vocabulary, where others come before them."""
    before = reading(["good", "never"])
    document = json.loads(before.tokenizer.to_str())
    places = {"good": 0, "never": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "[UNK]": 5, "[PAD]": 6}
    document["model"]["vocab"] = places
    for token in document["added_tokens"]:
        token["id"] = places[token["content"]]
    before = Preprocessing(limit_tokenizer(Tokenizer.from_str(json.dumps(document)), 16), 16)
    trimmed = trim_vocabulary(model, before, ["good", "bad"])
    assert trimmed.kept.tolist() == [0, 2, 3, 4, 5, 6]
    assert trimmed.model.config.special_token_ids == [1, 2]
    assert trimmed.model.config.pad_token_id == trimmed.preprocessing.pad_token_id == 5
    assert_read_alike(before, trimmed.preprocessing, trimmed.kept, ["good bad"])


def family_model(family: str, folder: Path, pieces: int = 40, special: tuple[int, int] = (2, 3)) -> RationaleModel:
    """A tiny model; RoBERTa's positions are counted from its padding id, 37 here."""
    geometry = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    sizes = {"vocab_size": pieces, "max_position_embeddings": 64, "initializer_range": 0.3}
    pad = {"pad_token_id": 37 if family == "roberta" else 0}
    net = family in ("bilstm", "cnn")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "bert" if net else family, **geometry, **sizes, **pad})
    )
    torch.manual_seed(0)
    spec = f"{family}:{folder}" if net else str(folder)
    encoders = [encoder_from_backbone(load_backbone(spec)) for _ in range(2)]
    sides = {name: encoder.config.to_dict() for name, encoder in zip(("predictor", "generator"), encoders, strict=True)}
    config = RationaleConfig("text", "re", ["neg", "pos"], **sides, max_length=16, special_token_ids=[*special])
    return RationaleModel(config, *encoders).eval()


@pytest.mark.parametrize("family", ["bert", "roberta", "bilstm", "cnn"])
@torch.no_grad()
def test_texts_of_kept_pieces_get_the_same_answer(family: str, tmp_path: Path) -> None:
    model, before = family_model(family, tmp_path), reading(["never", "good", "bad", "##ly", "film", "ever"])
    trimmed = trim_vocabulary(model, before, ["good film", "badly"])
    assert len(trimmed.kept) == 9
    for text in ("goodly bad film", "film badly", ""):
        (was,), (row,) = (encode_texts(p.tokenizer, [text]) for p in (before, trimmed.preprocessing))
        one, other = (
            m(torch.tensor([e.ids]), torch.ones(1, len(e.ids))) for m, e in ((model, was), (trimmed.model, row))
        )
        assert torch.equal(one.mask, other.mask)
        assert torch.allclose(one.logits, other.logits, rtol=0, atol=1e-6)
        assert torch.allclose(one.margin, other.margin, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shared", ["nothing", "module", "weight"])
def test_a_table_that_both_towers_share_stays_one(shared: str, tmp_path: Path) -> None:
    model, before = family_model("bert", tmp_path), reading(["never", "good"])
    generator, predictor = (side.encoder.backbone.embeddings for side in (model.generator, model.predictor))
    if shared == "module":
        generator.word_embeddings = predictor.word_embeddings
    elif shared == "weight":
        generator.word_embeddings.weight = predictor.word_embeddings.weight
    trimmed = trim_vocabulary(model, before, ["good"])
    tables = [
        side.encoder.backbone.embeddings.word_embeddings for side in (trimmed.model.generator, trimmed.model.predictor)
    ]
    assert (tables[0].weight is tables[1].weight) == (shared != "nothing")
    for table, source in zip(tables, (generator, predictor), strict=True):
        assert torch.equal(table.weight, source.word_embeddings.weight[trimmed.kept])
        assert table.num_embeddings == len(trimmed.kept) == 6
    assert predictor.word_embeddings.weight.shape[0] == 40
    config = trimmed.model.config
    assert config.predictor["vocab_size"] == config.generator["vocab_size"] == 6


@torch.no_grad()
def test_the_effect_is_that_of_asking_both(model: RationaleModel, whole: Preprocessing) -> None:
    texts = ["An absolute delight.", "dull lifeless", "bored", "très bon film", "delightful mess", "plot scene first"]
    trimmed = trim_vocabulary(model, whole, texts[:2])
    examples = Examples(texts, np.array([0, 1, 0, 1, 0, 1]))
    found = trimming_effect(model, whole, trimmed, examples)
    accuracies = []
    for asked, preprocessing in ((model, whole), (trimmed.model, trimmed.preprocessing)):
        rows = [torch.tensor([row.ids]) for row in encode_texts(preprocessing.tokenizer, texts)]
        labels = [int(asked(row, torch.ones_like(row)).logits.argmax()) for row in rows]
        accuracies.append(np.mean(labels == examples.labels))
    changed = [tokens_of(whole, text) != tokens_of(trimmed.preprocessing, text) for text in texts]
    assert 0 < sum(changed) < len(texts)
    assert found == {
        "pieces": len(trimmed.kept),
        "of": whole.tokenizer.get_vocab_size(),
        "rows": 6,
        "changed_rows": sum(changed),
        "accuracy_full": accuracies[0],
        "accuracy_trimmed": accuracies[1],
    }


def test_only_word_pieces_can_be_trimmed(model: RationaleModel) -> None:
    tokenizer = limit_tokenizer(Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])), 16)
    with pytest.raises(InputError, match=r"A BPE vocabulary cannot be trimmed.*leave --trim-vocabulary out"):
        trim_vocabulary(model, Preprocessing(tokenizer, 16), ["ab"])


@needs_shared
@pytest.mark.shared
def test_a_pretrained_vocabulary_loses_most_of_its_pieces(tmp_path: Path) -> None:
    before = Preprocessing(load_tokenizer(SHARED / "models/all-MiniLM-L6-v2/tokenizer.json", 64), 64)
    model = family_model("bert", tmp_path, pieces=30_522, special=(101, 102))
    texts = load_data(str(SHARED / "data/imdb"), DataSettings(train_limit=400)).split("train").inputs
    trimmed = trim_vocabulary(model, before, texts)
    assert_read_alike(before, trimmed.preprocessing, trimmed.kept, texts)
    assert 3000 < len(trimmed.kept) < 10_000
    assert tokens_of(trimmed.preprocessing, "[SEP] xylophonist") != ["[UNK]"]

"""The tokenizer file of a bundle gives what the run's tokenizer gives, and takes user text for nothing but text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from rekd_edge.data import train_tokenizer
from rekd_edge.export.tokenizer import neutral_tokenizer
from rekd_edge.runtime import Rationalizer
from rekd_edge.runtime.text import encode_texts, limit_tokenizer

TEXTS = [
    "An absolute delight [SEP] from the first scene to the last.",
    "[CLS] [SEP][SEP] x[SEP]y [PAD] [MASK] [UNK] [sep]",
    "",
    " ",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE} e\N{COMBINING ACUTE ACCENT} \N{FAMILY} 好 טוב",
    "a " * 40,
]


def byte_level() -> Tokenizer:
    """A byte-level BPE without merges, as RoBERTa adds its separators."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>"])
    return tokenizer


@pytest.mark.parametrize("make", [lambda: train_tokenizer(TEXTS, 200), byte_level], ids=["WordPiece", "byte-level"])
def test_a_neutral_tokenizer_gives_the_same(make: Callable[[], Tokenizer]) -> None:
    tokenizer = limit_tokenizer(make(), 32)
    texts = [*TEXTS, "a </s> b", "<s><pad>"]
    neutral = neutral_tokenizer(tokenizer)
    assert json.loads(neutral.to_str())["added_tokens"] == []

    # as a library reads it that cannot be told to take special tokens for text
    for text, expected in zip(texts, encode_texts(tokenizer, texts), strict=True):
        found = neutral.encode(text)
        assert (found.ids, found.tokens, found.offsets) == (expected.ids, expected.tokens, expected.offsets)
    assert encode_texts(limit_tokenizer(neutral, 32), texts) == encode_texts(tokenizer, texts)


def test_tokens_that_were_added_to_the_text_stay() -> None:
    tokenizer = train_tokenizer(TEXTS, 200)
    tokenizer.add_tokens([AddedToken("scene:first", normalized=False)])
    neutral = neutral_tokenizer(limit_tokenizer(tokenizer, 32))
    assert "scene:first" in neutral.encode("the scene:first").tokens


def test_a_bundle_holds_a_neutral_tokenizer(text_bundle: Path) -> None:
    file = text_bundle / "tokenizer.json"
    assert json.loads(file.read_text())["added_tokens"] == []
    features = Rationalizer.load(text_bundle)("a [SEP] b").tokens
    assert "[SEP]" not in features
    assert Tokenizer.from_file(str(file)).encode("a [SEP] b").tokens[1:-1] == features

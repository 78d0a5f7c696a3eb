"""A tokenizer for backbones that come without one."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from rekd_edge.errors import InputError

__all__ = ["train_tokenizer", "word_starts"]

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
"""With the ids 0 to 4."""


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """Train BERT's uncased WordPiece on texts; the same texts give the same tokenizer.

    Every character of the texts is covered, so the vocabulary outgrows `vocab_size` where there are more of them.
    """
    # The trainer numbers characters in the order of a hash table, and breaks ties between merges by number. Given in
    # a fixed order, as the start of a word (c) and inside one (##c), they leave it no choice.
    doubled = [character * 2 for character in sorted(set().union(*texts))]
    characters = sorted(_trained_vocabulary(doubled, 0, SPECIAL_TOKENS).keys() - set(SPECIAL_TOKENS))
    vocabulary = _trained_vocabulary(texts, vocab_size, SPECIAL_TOKENS + characters)
    tokenizer = _bert_tokenizer(vocabulary)
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )

    return tokenizer


def word_starts(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Which pieces of a vocabulary begin a word, bool `[pieces]`: those without WordPiece's ##, or where spaces are
    marked (Ġ, ▁) those with the mark and punctuation, which WordPiece parts from words too.

    Raises:
        InputError: the tokenizer marks neither.
    """
    vocabulary = tokenizer.get_vocab()
    model = json.loads(tokenizer.to_str())["model"]
    joining = model.get("continuing_subword_prefix")
    starts = np.ones(max(vocabulary.values()) + 1, dtype=bool)

    if model["type"] == "WordPiece" and joining:
        starts[[i for piece, i in vocabulary.items() if piece.startswith(joining)]] = False
        return starts

    spaced = [piece.startswith(("Ġ", "▁")) for piece in vocabulary]
    if not any(spaced):
        raise InputError("This tokenizer does not mark where words begin; leave select_words out.")

    own = {token["id"] for token in json.loads(tokenizer.to_str())["added_tokens"]}
    for (piece, i), marked in zip(vocabulary.items(), spaced, strict=True):
        starts[i] = marked or i in own or piece[:1] in string.punctuation

    return starts


def _trained_vocabulary(texts: Sequence[str], size: int, first_tokens: list[str]) -> dict[str, int]:
    tokenizer = _bert_tokenizer({})
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=first_tokens, limit_alphabet=sys.maxunicode, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.get_vocab()


def _bert_tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer

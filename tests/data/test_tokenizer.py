"""Where words begin, for every kind of vocabulary that marks it."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rekd_edge.data import train_tokenizer, word_starts
from rekd_edge.errors import InputError

TEXTS = ["unbelievable acting, unbelievably good", "the unbelievable actors acted well"]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=60, show_progress=False))
    return tokenizer


def unmarked() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=60, show_progress=False))
    return tokenizer


@pytest.mark.parametrize("tokenizer", [train_tokenizer(TEXTS, 60), byte_level()], ids=["WordPiece", "byte level"])
def test_a_word_starts_where_the_tokenizer_split_the_text(tokenizer: Tokenizer) -> None:
    starts = word_starts(tokenizer)
    encoded = tokenizer.encode("the unbelievable acted watering", add_special_tokens=False)
    assert len(encoded.ids) > 4  # some words are in pieces
    words = encoded.word_ids
    expected = [i == 0 or words[i] != words[i - 1] for i in range(len(words))]
    assert starts[encoded.ids].tolist() == expected


def test_a_vocabulary_without_marks_is_refused() -> None:
    with pytest.raises(InputError, match="does not mark where words begin"):
        word_starts(unmarked())

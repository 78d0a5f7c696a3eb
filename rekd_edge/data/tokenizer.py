"""A tokenizer for backbones that come without one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

__all__ = ["train_tokenizer"]

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

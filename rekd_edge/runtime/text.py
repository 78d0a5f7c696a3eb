"""Text to token ids: the one preprocessing that training, export and the device share. Needs numpy and tokenizers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rekd_edge.errors import InputError
from rekd_edge.runtime.border import in_short

__all__ = [
    "EncodedText",
    "allowed_tokens",
    "encode_texts",
    "limit_tokenizer",
    "load_tokenizer",
    "pad_ids",
    "special_token_ids",
]

# A text is cut to this many characters per allowed token before it is tokenised, so that a giant input costs no
# more than a long one. Words and runs of spaces in real text are far shorter.
CHARACTERS_PER_TOKEN = 256
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class EncodedText:
    """One tokenised text; every list has one entry a position, special tokens included.

    `offsets` are (start, end) in Unicode code points of the input. `feature` is False for the special tokens that
    the tokenizer itself adds. `truncated` says that the end of the text was cut.
    """

    ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]
    feature: list[bool]
    truncated: bool


def load_tokenizer(path: Path, max_length: int) -> Tokenizer:
    """Open `tokenizer.json`: no padding, at most `max_length` ids (special tokens included), user text is only text.

    Raises:
        InputError: the file is missing or unreadable, or `max_length` leaves no room for text.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing; give a folder that holds a tokenizer.json.")

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except BaseException as error:  # tokenizers raises bare Exception, and its Rust code no subclass of it
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = in_short(error)
        raise InputError(f"{path} is not a readable tokenizer.json ({reason}); save or export it again.") from error

    return limit_tokenizer(tokenizer, max_length)


def limit_tokenizer(tokenizer: Tokenizer, max_length: int) -> Tokenizer:
    """Set a tokenizer in place to no padding, at most `max_length` ids, and to read user text as nothing but text.

    Raises:
        InputError: `max_length` leaves no room for text.
    """
    added = tokenizer.num_special_tokens_to_add(False)
    if max_length <= added:
        raise InputError(f"max_length {max_length} leaves no room beside {added} special tokens; make it larger.")

    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=max_length)
    tokenizer.encode_special_tokens = True  # text that spells "[SEP]" is text

    return tokenizer


def allowed_tokens(tokenizer: Tokenizer) -> int:
    """How many ids a tokenizer from `load_tokenizer` gives at most, special tokens included."""
    truncation = tokenizer.truncation
    assert truncation is not None
    return int(truncation["max_length"])


def special_token_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that the tokenizer itself adds to every text, sorted: they are never features."""
    empty = tokenizer.encode("")
    return sorted({i for i, special in zip(empty.ids, empty.special_tokens_mask, strict=True) if special})


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[EncodedText]:
    """Tokenise texts with a tokenizer from `load_tokenizer`."""
    limit = allowed_tokens(tokenizer) * CHARACTERS_PER_TOKEN
    cut = [_replace_surrogates(text[:limit]) for text in texts]
    # A batch starts a thread pool, which a single text need not pay for.
    encodings = [tokenizer.encode(cut[0])] if len(cut) == 1 else tokenizer.encode_batch(cut)
    special = set(special_token_ids(tokenizer))

    return [
        EncodedText(
            ids=encoding.ids,
            tokens=encoding.tokens,
            offsets=encoding.offsets,
            feature=[i not in special for i in encoding.ids],  # the rule of the graph, word for word
            truncated=bool(encoding.overflowing) or len(text) > limit,
        )
        for text, encoding in zip(texts, encodings, strict=True)
    ]


def pad_ids(ids: Sequence[Sequence[int]], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pad on the right to the longest row, at least one position: `(input_ids, attention_mask)`, int64 `[b, s]`."""
    width = max(1, max(map(len, ids), default=1))
    input_ids = np.full((len(ids), width), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(ids), width), dtype=np.int64)

    for row, values in enumerate(ids):
        input_ids[row, : len(values)] = values
        attention_mask[row, : len(values)] = 1

    return input_ids, attention_mask


def _replace_surrogates(text: str) -> str:
    """Lone surrogates have no UTF-8 form; each becomes one U+FFFD, so that offsets stay those of the input."""
    return SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)

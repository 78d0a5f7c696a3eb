"""Tokenising: offsets are code points of the input, user text is only text, and cuts are told."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rekd_edge.errors import InputError
from rekd_edge.runtime.text import encode_texts, load_tokenizer, pad_ids, special_token_ids


@pytest.fixture(scope="module")
def tokenizer(pristine_text_bundle: Path) -> Tokenizer:
    return load_tokenizer(pristine_text_bundle / "tokenizer.json", 16)


def features(tokenizer: Tokenizer, text: str) -> list[tuple[str, str]]:
    """(token, the characters it covers) of every feature."""
    encoded = encode_texts(tokenizer, [text])[0]
    rows = zip(encoded.tokens, encoded.offsets, encoded.feature, strict=True)
    return [(token, text[start:end]) for token, (start, end), feature in rows if feature]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The GOOD films", [("the", "The"), ("good", "GOOD"), ("film", "film"), ("##s", "s")]),
        ("👩‍👩‍👧 good", [("[UNK]", "👩‍👩‍👧"), ("good", "good")]),
        ("סרט טוב", [("סרט", "סרט"), ("טוב", "טוב")]),
        ("cafe\u0301s good", [("caf", "caf"), ("##e", "e"), ("##s", "s"), ("good", "good")]),
        ("go\x00od", [("good", "go\x00od")]),
        ("\ud800 good", [("good", "good")]),
        ("", []),
        (" \t\n", []),
    ],
)
def test_offsets_count_code_points_of_the_input(
    tokenizer: Tokenizer, text: str, expected: list[tuple[str, str]]
) -> None:
    assert features(tokenizer, text) == expected


def test_text_that_spells_a_special_token_is_text(tokenizer: Tokenizer) -> None:
    assert features(tokenizer, "a [SEP] a") == [("a", "a"), ("[", "["), ("sep", "SEP"), ("]", "]"), ("a", "a")]


def test_only_the_tokens_that_the_tokenizer_adds_are_special(tokenizer: Tokenizer) -> None:
    assert special_token_ids(tokenizer) == [2, 3]
    assert encode_texts(tokenizer, ["zzz"])[0].feature == [False, True, False]  # [UNK] is a feature


@pytest.mark.parametrize(("words", "truncated"), [(14, False), (15, True)])
def test_truncated_says_when_text_was_cut(tokenizer: Tokenizer, words: int, truncated: bool) -> None:
    encoded = encode_texts(tokenizer, ["good " * words])[0]
    assert len(encoded.ids) == 16
    assert encoded.truncated is truncated


def test_a_giant_text_is_cut_before_it_is_tokenised(tokenizer: Tokenizer) -> None:
    encoded = encode_texts(tokenizer, [" " * 5_000_000 + "good", "good"])
    assert (encoded[0].ids, encoded[0].truncated) == ([2, 3], True)
    assert encoded[1].truncated is False


def test_one_text_and_a_batch_encode_alike(tokenizer: Tokenizer) -> None:
    texts = ["good film", "", "bad " * 40]
    assert encode_texts(tokenizer, texts) == [encode_texts(tokenizer, [text])[0] for text in texts]
    assert encode_texts(tokenizer, []) == []


@given(text=st.text(max_size=60))
def test_any_text_encodes_within_its_bounds(tokenizer: Tokenizer, text: str) -> None:
    encoded = encode_texts(tokenizer, [text])[0]
    assert len(encoded.ids) == len(encoded.tokens) == len(encoded.offsets) == len(encoded.feature) <= 16
    assert all(0 <= start <= end <= len(text) for start, end in encoded.offsets)


def test_padding_is_on_the_right_and_never_zero_wide() -> None:
    ids, attention = pad_ids([[5, 6, 7], [8], []], pad_id=9)
    np.testing.assert_array_equal(ids, [[5, 6, 7], [8, 9, 9], [9, 9, 9]])
    np.testing.assert_array_equal(attention, [[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    assert ids.dtype == attention.dtype == np.int64
    assert pad_ids([[]], 0)[0].shape == (1, 1)


@pytest.mark.parametrize("content", [None, "not json", "{}"])
def test_an_unreadable_tokenizer_is_one_clear_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        load_tokenizer(path, 16)


def test_a_limit_without_room_for_text_is_refused(pristine_text_bundle: Path) -> None:
    with pytest.raises(InputError, match="no room"):
        load_tokenizer(pristine_text_bundle / "tokenizer.json", 2)

"""Predictions keep the contract, checked against outputs computed by hand from the tiny graphs."""

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rekd_edge.errors import FailureError, InputError
from rekd_edge.runtime import ImagePrediction, Rationalizer, TextPrediction
from rekd_edge.runtime.batching import batches_of_like_length
from rekd_edge.runtime.prediction import merge_spans


@pytest.fixture(scope="module")
def texts(pristine_text_bundle: Path) -> Rationalizer:
    return Rationalizer.load(pristine_text_bundle, threads=1)


@pytest.fixture(scope="module")
def images(pristine_image_bundle: Path) -> Rationalizer:
    return Rationalizer.load(pristine_image_bundle, threads=1)


def test_a_text_prediction_has_the_fields_of_the_contract(texts: Rationalizer) -> None:
    text = "The films: a good film."
    result = texts(text)
    assert isinstance(result, TextPrediction)
    positive = float(np.exp(2) / (1 + np.exp(2)))
    document = json.loads(json.dumps(result.to_dict()))
    assert document.pop("scores") == pytest.approx({"negative": 1 - positive, "positive": positive})
    # "The", "film", "##s", ":" (unknown), "a", "good", "film", "."
    assert document == {
        "label": "positive",
        "label_id": 1,
        "rationale": [{"start": 8, "end": 9, "text": "s"}, {"start": 13, "end": 17, "text": "good"}],
        "mask": [0, 0, 1, 0, 0, 1, 0, 0],
        "tokens": ["the", "film", "##s", "[UNK]", "a", "good", "film", "."],
        "rationale_ratio": 0.25,
        "truncated": False,
    }


def test_adjacent_selected_tokens_are_merged_with_the_text_between(texts: Rationalizer) -> None:
    assert texts("a good \t bad film").rationale == [{"start": 2, "end": 12, "text": "good \t bad"}]


@pytest.mark.parametrize("text", ["", "   ", "\x00"])
def test_a_text_without_tokens_has_an_empty_mask_and_a_finite_answer(texts: Rationalizer, text: str) -> None:
    result = texts(text)
    assert (result.mask, result.tokens, result.rationale, result.rationale_ratio) == ([], [], [], 0.0)
    assert result.scores == {"negative": 0.5, "positive": 0.5}


def test_one_word_is_selected_whatever_its_margin(texts: Rationalizer) -> None:
    assert texts("the").rationale == [{"start": 0, "end": 3, "text": "the"}]


def test_the_first_of_equal_margins_is_the_fallback(texts: Rationalizer) -> None:
    assert texts("the film the film").mask == [1, 0, 0, 0]
    assert texts("the 👩‍👩‍👧 film").rationale == [{"start": 4, "end": 9, "text": "👩‍👩‍👧"}]


def test_right_to_left_and_accented_text_keep_their_characters(texts: Rationalizer) -> None:
    assert texts("סרט טוב").rationale == [{"start": 4, "end": 7, "text": "טוב"}]
    text = "cafe\u0301 go\u0301od"
    assert texts(text).rationale == [{"start": 6, "end": 11, "text": "go\u0301od"}]


def test_an_over_long_text_says_that_it_was_cut(texts: Rationalizer) -> None:
    result = texts("the " * 14 + "good")
    assert result.truncated
    assert len(result.mask) == 14
    assert result.label == "negative"  # a tie: "good" was not read


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(alphabet="goodba filmthes.[]", max_size=40), max_size=8),
    st.integers(min_value=1, max_value=9),
)
def test_answers_depend_on_neither_order_nor_batch(texts: Rationalizer, inputs: list[str], batch_size: int) -> None:
    assert texts(inputs, batch_size=batch_size) == [texts(text) for text in inputs]


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 20))
def test_batches_hold_every_row_once_and_little_padding(lengths: list[int], batch_size: int) -> None:
    batches = batches_of_like_length(lengths, batch_size)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        positions = len(batch) * max(lengths[index] for index in batch)
        assert sum(lengths[index] for index in batch) >= 0.9 * positions - 1e-9


def test_rows_of_one_length_fill_their_batches() -> None:
    assert list(map(len, batches_of_like_length([7] * 20, 8))) == [8, 8, 4]
    assert batches_of_like_length([100, 5, 95, 5], 8) == [[1, 3], [2, 0]]


def test_rows_are_the_features_of_the_raw_outputs(texts: Rationalizer) -> None:
    inputs = ["a good film", "", "bad"]
    rows = texts.predict_rows(inputs, batch_size=2)
    assert rows.logits.tolist() == [[0, 2], [0, 0], [2, 0]]
    assert [mask.tolist() for mask in rows.masks] == [[False, True, False], [], [True]]
    assert [margin.tolist() for margin in rows.margins] == [[-1, 2, -1], [], [2]]


def test_raw_outputs_give_non_features_the_lowest_margin(texts: Rationalizer) -> None:
    ids = np.array([[2, 4, 3, 0]])  # [CLS] good [SEP] [PAD]
    outputs = texts.run({"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)})
    lowest = np.finfo(np.float32).min
    assert outputs["selection_margin"].tolist() == [[lowest, 2, lowest, lowest]]
    assert outputs["rationale_mask"].tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("wrong", [3, None, b"bytes", ["good", 3], {"good": 1}, [["good"]]])
def test_what_is_no_text_is_refused(texts: Rationalizer, wrong: object) -> None:
    with pytest.raises(InputError, match="is not a text"):
        texts(wrong)  # type: ignore[call-overload]


def test_an_empty_list_gives_an_empty_list(texts: Rationalizer, images: Rationalizer) -> None:
    assert texts([]) == images([]) == []


def test_a_batch_size_below_one_is_refused(texts: Rationalizer) -> None:
    with pytest.raises(InputError, match="batch"):
        texts(["good"], batch_size=0)


def test_numbers_that_are_not_finite_are_a_failure(texts: Rationalizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "run", lambda inputs: {"logits": np.array([[np.nan, 0]], np.float32)})
    with pytest.raises(FailureError, match="not finite"):
        texts("good")


def bright_patch(row: int, column: int) -> np.ndarray:
    image = np.zeros((16, 24, 3), np.uint8)
    image[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 255
    return image


def test_an_image_prediction_has_the_patch_grid_in_rows(images: Rationalizer) -> None:
    result = images(bright_patch(1, 2))
    assert isinstance(result, ImagePrediction)
    document = json.loads(json.dumps(result.to_dict()))
    assert document.pop("scores")["bright"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert document == {
        "label": "bright",
        "label_id": 1,
        "mask": [[0, 0, 0], [0, 0, 1]],
        "patch_size": 8,
        "rationale_ratio": pytest.approx(1 / 6),
    }


def test_images_answer_in_order_at_any_batch_size(images: Rationalizer) -> None:
    from PIL import Image

    sources = [bright_patch(0, 0), Image.new("L", (1, 1), 255), Image.new("RGBA", (50, 3)), bright_patch(1, 1)]
    expected = [[[1, 0, 0], [0, 0, 0]], [[1, 1, 1]] * 2, [[1, 1, 1]] * 2, [[0, 0, 0], [0, 1, 0]]]
    for batch_size in (1, 3, 4):
        assert [result.mask for result in images(sources, batch_size=batch_size)] == expected


def test_a_text_bundle_and_an_image_bundle_are_not_confused(texts: Rationalizer, images: Rationalizer) -> None:
    with pytest.raises(InputError):
        images("a good film")
    with pytest.raises(InputError, match="images, not texts"):
        images.encode(["a good film"])
    with pytest.raises(InputError):
        texts(bright_patch(0, 0))


tokens = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans()), max_size=30)


def spans_by_characters(offsets: Sequence[tuple[int, int]], mask: Sequence[int]) -> set[int]:
    return {character for (start, end), on in zip(offsets, mask, strict=True) if on for character in range(start, end)}


@given(tokens)
def test_merged_spans_cover_the_selected_tokens_and_only_gaps_between_neighbours(
    drawn: list[tuple[int, int, bool]],
) -> None:
    offsets, mask, position = [], [], 0
    for gap, length, selected in drawn:
        offsets.append((position + gap, position + gap + length))
        mask.append(int(selected))
        position += gap + length
    spans = merge_spans(offsets, mask)
    covered = {character for start, end in spans for character in range(start, end)}
    chosen = spans_by_characters(offsets, mask)
    others = spans_by_characters(offsets, [1 - on for on in mask])
    assert chosen <= covered
    assert not covered & others  # no character of an unselected token
    assert all(start in chosen and end - 1 in chosen for start, end in spans)  # tight
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))  # in order, apart


def test_tokens_that_share_characters_share_a_span() -> None:
    emoji = [(0, 1), (0, 1), (0, 1), (2, 5)]  # the bytes of one emoji, then a word
    assert merge_spans(emoji, [1, 0, 1, 0]) == [(0, 1)]
    assert merge_spans(emoji, [1, 1, 1, 1]) == [(0, 5)]
    assert merge_spans([(0, 1), (2, 3), (3, 3), (4, 5)], [1, 0, 1, 1]) == [(0, 1), (4, 5)]


FORBIDDEN = {"torch", "transformers", "onnx", "optimum", "datasets", "PIL", "rich", "typer", "scipy", "sklearn"}


def test_text_prediction_imports_nothing_heavy(pristine_text_bundle: Path) -> None:
    code = (
        "import sys; from rekd_edge import Rationalizer; import rekd_edge.runtime.text, rekd_edge.runtime.image;"
        f"assert Rationalizer.load({str(pristine_text_bundle)!r})('good').label == 'positive';"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not FORBIDDEN & set(done.stdout.split())

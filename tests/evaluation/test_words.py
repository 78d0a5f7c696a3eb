"""Pieces to words, and windows over long texts: by hand, and properties on random ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekd_edge.evaluation.words import LOWEST, Window, in_pieces, in_words, merged, windows_of, words_within

WORDS = [(0, 4), (5, 9), (10, 12)]


def test_a_word_takes_the_best_of_its_pieces() -> None:
    # "film" is whole, "dull" has two pieces, the last word was not read
    offsets = [(0, 4), (5, 7), (7, 9)]
    mask, scores = in_words(WORDS, offsets, np.array([False, False, True]), np.array([-1.0, -3.0, 2.0]))
    assert mask.tolist() == [False, True, False]
    assert scores.tolist() == [-1.0, 2.0, LOWEST]


def test_spans_in_characters_become_spans_in_words() -> None:
    assert words_within(WORDS, [(0, 9), (11, 12), (4, 5), (6, 11)]) == [(0, 2), (2, 3), (1, 3)]
    assert words_within([], [(0, 3)]) == []


def test_windows_by_hand() -> None:
    words = [(10 * i, 10 * i + 5) for i in range(6)]
    pieces = np.array([1, 2, 1, 1, 3, 1])
    assert windows_of(words, pieces, 4) == [
        Window(0, 3, 0, 25),  # 1 + 2 + 1
        Window(1, 4, 10, 35),  # from the first word that does not fit into half a window: 2 + 1 + 1
        Window(2, 4, 20, 35),
        Window(4, 6, 40, 55),
    ]
    assert windows_of(words, pieces, 100) == [Window(0, 6, 0, 55)]
    assert windows_of([], np.array([], int), 4) == []


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(2, 20))
def test_windows_cover_the_text_and_fit(pieces: list[int], longest: int) -> None:
    words = [(2 * i, 2 * i + 1) for i in range(len(pieces))]
    windows = windows_of(words, np.array(pieces), longest)
    assert windows[0].first == 0
    assert windows[-1].last == len(pieces)
    for window in windows:
        assert sum(pieces[window.first : window.last]) <= longest or window.last == window.first + 1
    for one, other in pairwise(windows):
        assert one.first < other.first <= one.last < other.last or other.first <= one.last


def test_a_word_is_judged_where_it_has_most_room() -> None:
    windows = [Window(0, 4, 0, 0), Window(2, 6, 0, 0)]
    masks = [np.array([True, False, True, False]), np.array([False, True, False, True])]
    scores = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, 6.0, 7.0, 8.0])]
    mask, values = merged(windows, masks, scores)
    # word 2 stands second from the edge of the first window and at that of the second; word 3 the other way round
    assert values.tolist() == [1.0, 2.0, 3.0, 6.0, 7.0, 8.0]
    assert mask.tolist() == [True, False, True, True, False, True]


@given(st.integers(1, 30), st.integers(2, 9))
def test_one_window_is_taken_as_it_is_and_all_words_are_judged(count: int, longest: int) -> None:
    words = [(2 * i, 2 * i + 1) for i in range(count)]
    windows = windows_of(words, np.ones(count, int), longest)
    scores = [np.arange(each.first, each.last, dtype=float) for each in windows]
    mask, values = merged(windows, [np.ones(len(each), bool) for each in scores], scores)
    assert mask.all()
    assert values.tolist() == pytest.approx(list(range(count)))


def test_words_go_to_pieces_and_back() -> None:
    """Three words of two, one and two pieces; the sixth piece stands between words."""
    words, offsets = [(0, 4), (5, 7), (9, 13)], [(0, 2), (2, 4), (5, 7), (9, 11), (11, 13), (7, 8)]
    mask = np.array([True, False, True])
    pieces = in_pieces(words, offsets, mask)
    assert pieces.tolist() == [True, True, False, True, True, False]
    assert in_words(words, offsets, pieces, np.zeros(6))[0].tolist() == mask.tolist()

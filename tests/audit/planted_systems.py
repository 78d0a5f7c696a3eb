"""Systems whose honesty is known: one that reads cue words, and three that cheat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rekd_edge.runtime.text import EncodedText
from rekd_edge.systems import Answers, ImageRows, Rows, TextRows

WORDS = [
    "[CLS]",
    "[SEP]",
    "[UNK]",
    "the",
    "a",
    "superb",
    "charming",
    "awful",
    "dull",
    *(f"filler{i}" for i in range(40)),
]
ID = {word: number for number, word in enumerate(WORDS)}
CUES = ["awful", "dull"], ["superb", "charming"]


def texts(count: int, seed: int) -> tuple[TextRows, NDArray[np.int64]]:
    """Texts of filler, one "the", one "a" and two cue words of their label, all at random places."""
    rng = np.random.default_rng(seed)
    encoded, labels = [], rng.integers(0, 2, count)
    for label in labels:
        words = [*rng.choice(WORDS[9:], rng.integers(12, 30)), "the", "a", *rng.choice(CUES[label], 2)]
        encoded.append(text_of([str(word) for word in rng.permutation(words)]))

    return TextRows(encoded, ID["[UNK]"]), labels


def text_of(words: list[str]) -> EncodedText:
    tokens = ["[CLS]", *words, "[SEP]"]
    offsets = [(0, 0), *((2 * i, 2 * i + 1) for i in range(len(words))), (0, 0)]
    return EncodedText([ID[token] for token in tokens], tokens, offsets, [False, *[True] * len(words), False], False)


@dataclass
class Planted:
    """A generator and a predictor as functions of a text's feature ids [features]."""

    select: Callable[[NDArray[np.int64], bool], NDArray[np.bool_]]
    """A mask, from the features and whether they hold a positive cue."""
    decide: Callable[[NDArray[np.int64], NDArray[np.bool_]], float]
    """How positive the features in a mask are, 0 for not at all."""
    name: str = "planted"
    task: str = "text"
    whole_input: bool = False

    def __post_init__(self) -> None:
        self.labels = ["neg", "pos"]

    def encode(self, inputs: Sequence[object]) -> Rows:
        raise NotImplementedError

    def answer(self, rows: Rows, masks: str = "deterministic") -> Answers:
        assert not isinstance(rows, ImageRows)
        chosen = []
        for i in range(len(rows)):
            ids = rows.feature_ids(i)
            chosen.append(self.select(ids, bool(np.isin(ids, [ID[word] for word in CUES[1]]).any())))
        margins = [np.where(mask, 1.0, -1.0).astype(np.float32) for mask in chosen]
        return Answers(self.classify(rows, chosen), chosen, margins, np.arange(len(rows)))

    def classify(self, rows: Rows, masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.float32]:
        assert not isinstance(rows, ImageRows)
        positive = [self.decide(rows.feature_ids(i), mask) for i, mask in enumerate(masks)]
        return np.array([[0.0, value] for value in positive], dtype=np.float32)


def _cue_words() -> Planted:
    positive, negative = ([ID[word] for word in CUES[label]] for label in (1, 0))
    return Planted(
        lambda ids, _: np.isin(ids, positive + negative),
        lambda ids, mask: float(np.isin(ids[mask], positive).sum() - np.isin(ids[mask], negative).sum()),
    )


def _position() -> Planted:
    def select(ids: NDArray[np.int64], positive: bool) -> NDArray[np.bool_]:
        return np.arange(len(ids)) == (0 if positive else len(ids) - 1)

    return Planted(
        select, lambda ids, mask: 1.0 if mask[: len(mask) // 2].sum() > mask[len(mask) // 2 :].sum() else -1.0
    )


def _count() -> Planted:
    def select(ids: NDArray[np.int64], positive: bool) -> NDArray[np.bool_]:
        places = np.random.default_rng(int(ids.sum())).permutation(len(ids))
        return np.isin(np.arange(len(ids)), places[: 3 if positive else 1])

    return Planted(select, lambda ids, mask: 1.0 if mask.sum() == 3 else -1.0)


def _token() -> Planted:
    def select(ids: NDArray[np.int64], positive: bool) -> NDArray[np.bool_]:
        return ids == ID["the" if positive else "a"]

    return Planted(select, lambda ids, mask: 1.0 if ID["the"] in ids[mask] and ID["a"] not in ids[mask] else -1.0)


HONEST = _cue_words()
CHEATS = {"position": _position(), "count": _count(), "token": _token()}

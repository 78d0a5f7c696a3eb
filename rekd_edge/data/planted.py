"""`builtin:planted`: generated reviews whose label a few planted cue words decide, so the true rationale is known.

Everything but the cue words' polarity is drawn before the label is looked at: length, sentences, filler, the number of
cues, where they stand and how many of them are distractors. None of these can say anything about the label.
"""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np

from rekd_edge.data.examples import DataSource, Examples

__all__ = ["PLANTED_CUE_RATIO", "planted"]

PLANTED_CUE_RATIO = 0.1
"""Share of the cue words in the words and punctuation marks of every review, exactly."""

SIZES = {"train": 4000, "validation": 1000, "test": 1000}
CUES_PER_REVIEW = (2, 6)
DISTRACTOR_REVIEWS = 0.3
"""Share of the reviews with three or more cues in which a minority of them belongs to the other label."""

LABELS = ["neg", "pos"]
CUES = [
    words.split()
    for words in (
        "dreadful tedious clumsy dreary shallow lifeless painful bland stilted hollow "
        "dismal grating awkward muddled tiresome stale pointless sloppy ridiculous unbearable",
        "delightful gripping superb charming brilliant touching inventive radiant witty splendid "
        "joyful dazzling heartfelt masterful elegant thrilling hilarious sublime graceful captivating",
    )
]
"""Cue words of each label, by label id."""

# Each sentence starts with a word that is no cue, and no article depends on the word after it.
SENTENCES = [
    sentence.split()
    for sentence in (
        "the {adjective} {noun} {verb} {adverb} .",
        "that {noun} looked {adjective} {adverb} .",
        "{person} {verb} the {adjective} {noun} {adverb} .",
        "we watched this {adjective} {noun} {adverb} .",
        "the {noun} and its {adjective} {noun} {verb} .",
        "its {adjective} {noun} {verb} the {adjective} {noun} .",
        "in the {adjective} {noun} , {person} {verb} {adverb} .",
        "some {noun} {verb} one {adjective} and {adjective} {noun} .",
        "{person} called the {noun} {adjective} , the {noun} {adjective} .",
        "while the {adjective} {noun} {verb} , this {adjective} {noun} {verb} .",
        "before the {noun} {verb} , its {adjective} {noun} {verb} {adverb} .",
        "for {person} the {noun} was {adjective} , for {person} {adjective} .",
        "{person} and {person} {verb} each {adjective} {noun} {adverb} .",
    )
]
FILLER = {
    kind: words.split()
    for kind, words in {
        "adjective": (
            "early late second third final opening narrow wide distant local foreign modern ancient rural urban "
            "coastal crowded empty silent loud round square tall short young old red green blue yellow painted "
            "printed borrowed hidden open closed southern northern seasonal weekly"
        ),
        "noun": (
            "actor actress album alley anthem apartment archive audience balcony ballad bakery banner beach bridge "
            "brother cabin camera candle canvas carriage castle chapter chorus cinema circus city clock coat college "
            "colour comedy concert costume cousin curtain dance daughter dialogue diner director doctor documentary "
            "door drama editor engine episode estate evening farm father festival film finale forest friend gallery "
            "garden guitar hallway harbour helmet hotel house interview island jacket journey kitchen ladder lamp "
            "landlord lantern letter library lobby magazine market melody mirror monologue montage morning mother "
            "mountain museum musician narrator neighbour novel officer orchestra painter palace parade passage "
            "photograph piano picture plot poem portrait postcard prologue pilot queen radio railway recording "
            "restaurant river sailor scene school screen script season sequel sergeant shop singer sister soundtrack "
            "station story street studio summer teacher theatre ticket tower trailer train uncle valley village "
            "violin voice waiter window winter writer"
        ),
        "verb": (
            "approached arranged carried changed circled closed continued crossed described entered filmed followed "
            "framed introduced joined left mentioned moved noticed opened ordered passed photographed played "
            "presented quoted reached recorded remembered repeated returned showed started studied turned visited"
        ),
        "adverb": (
            "again already also anyway daily downstairs elsewhere eventually first indoors inside lately later "
            "monthly now often once outdoors outside overnight recently sometimes somewhere soon there today "
            "together tonight twice upstairs yesterday"
        ),
        "person": (
            "Agnes Albert Barbara Bernard Clara Daniel Edith Edward Fiona George Harriet Henry Irene Jacob Julia "
            "Karl Laura Leonard Margaret Martin Nora Oscar Paula Peter Rachel Robert Simon Susan Thomas Vera Walter"
        ),
    }.items()
}


@lru_cache(maxsize=2)  # a run and its control, or the runs of a sweep, read the same reviews
def planted(seed: int) -> DataSource:
    """4,000 / 1,000 / 1,000 reviews of 20 to 60 words and punctuation marks, balanced in each split."""
    return DataSource(
        "text", list(LABELS), {name: _reviews(size, random.Random(f"{seed} {name}")) for name, size in SIZES.items()}
    )


def _reviews(count: int, rng: random.Random) -> Examples:
    labels = [i % 2 for i in range(count)]
    rng.shuffle(labels)
    reviews = [_review(label, rng) for label in labels]
    return Examples(
        [text for text, _ in reviews], np.array(labels, dtype=np.int64), rationale_spans=[spans for _, spans in reviews]
    )


def _review(label: int, rng: random.Random) -> tuple[str, list[tuple[int, int]]]:
    """One review, and the character span of each of its cue words."""
    cues = rng.randint(*CUES_PER_REVIEW)
    slots = _slots(round(cues / PLANTED_CUE_RATIO), rng)

    places = [i for i, slot in enumerate(slots) if slot == "{adjective}"]
    if len(places) <= cues:
        return _review(label, rng)

    distractors = rng.randint(1, (cues - 1) // 2) if cues > 2 and rng.random() < DISTRACTOR_REVIEWS else 0
    chosen = rng.sample(places, cues)  # in random order, so the first ones may stand anywhere
    polarity = {place: 1 - label if i < distractors else label for i, place in enumerate(chosen)}
    drawn = [iter(rng.sample(words, cues)) for words in CUES]  # no cue twice in one review
    words = [
        next(drawn[polarity[i]]) if i in polarity else rng.choice(FILLER[slot[1:-1]]) if slot[0] == "{" else slot
        for i, slot in enumerate(slots)
    ]

    return _written(words, set(chosen))


def _slots(length: int, rng: random.Random) -> list[str]:
    """Sentences of `length` words and punctuation marks together, open places still in braces."""
    lengths = {len(sentence) for sentence in SENTENCES}
    slots: list[str] = []
    while left := length - len(slots):
        slots += rng.choice([s for s in SENTENCES if len(s) == left or left - len(s) >= min(lengths)])
    return slots


def _written(words: list[str], cues: set[int]) -> tuple[str, list[tuple[int, int]]]:
    """Words with spaces and capitals: the text, and the span of each cue in it."""
    text, spans, starts_sentence = "", [], True
    for i, word in enumerate(words):
        if word not in ".,":
            text += " " if text else ""
        if i in cues:
            spans.append((len(text), len(text) + len(word)))

        text += word[0].upper() + word[1:] if starts_sentence else word
        starts_sentence = word == "."

    return text, spans

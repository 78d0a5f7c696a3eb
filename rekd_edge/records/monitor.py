"""Has something moved? New records against what the bundle said of its validation data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency

from rekd_edge.errors import InputError

__all__ = ["Change", "compare", "summary"]

WORDS = 100
"""Most frequent rationale words that a manifest keeps."""
LEVEL = 0.01
"""Of all tests together: each is held against LEVEL divided by their number (Bonferroni)."""
LEAST_CHANGE = 0.05
"""A share that moved by less is not reported, however many records show it."""
LEAST_RECORDS = 30


@dataclass(frozen=True)
class Change:
    """One thing that is compared."""

    what: str
    reference: float
    records: float
    p: float
    moved: bool


def summary(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What predictions or records have in common, as a manifest keeps it under `reference`.

    Args:
        answers: documents with `label`, `scores`, `rationale_ratio` and, of texts, `rationale`.

    Returns:
        `n`, `labels` (counts), `ratio` and `confidence` (nine deciles each), `words` (how many rationales hold each of
        the most frequent words).
    """
    labels: Counter[str] = Counter()
    words: Counter[str] = Counter()
    ratios, confidences = [], []

    for answer in answers:
        labels[answer["label"]] += 1
        ratios.append(answer["rationale_ratio"])
        confidences.append(max(answer["scores"].values()))
        words.update(_words(answer))

    return {
        "n": len(ratios),
        "labels": dict(labels),
        "ratio": _deciles(ratios),
        "confidence": _deciles(confidences),
        "words": dict(words.most_common(WORDS)),
    }


def compare(reference: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Compare records with a bundle's `reference`: label shares, rationale ratios, confidence and rationale words.

    Raises:
        InputError: there are fewer than 30 records, or the reference contradicts itself.
    """
    if len(records) < LEAST_RECORDS:
        raise InputError(f"{len(records)} records are too few to tell; come back with {LEAST_RECORDS} or more.")

    before, now = int(reference["n"]), len(records)
    if max([0, *reference["labels"].values(), *reference["words"].values()]) > before:
        raise InputError("The bundle counts more labels or words than it had validation rows; export the run again.")

    found: list[tuple[str, float, float, float]] = []

    labels = Counter(record["label"] for record in records)
    for label in sorted({*reference["labels"], *labels}):
        found.append((f"label {label}", *_shares(reference["labels"].get(label, 0), before, labels[label], now)))

    for name, values in {
        "ratio": [record["rationale_ratio"] for record in records],
        "confidence": [max(record["scores"].values()) for record in records],
    }.items():
        edges = reference[name]
        middle = edges[len(edges) // 2]
        above = sum(value > middle for value in values)
        found.append((f"{name} above {middle:.3g}", *_shares(before // 2, before, above, now)))

        highest, lowest = sum(value > edges[-1] for value in values), sum(value < edges[0] for value in values)
        found.append(
            (f"{name} outside {edges[0]:.3g} to {edges[-1]:.3g}", *_shares(before // 5, before, highest + lowest, now))
        )

    words = Counter(word for record in records for word in _words(record))
    for word in sorted({*reference["words"], *(word for word, _ in words.most_common(WORDS))}):
        found.append((f"word {word!r}", *_shares(reference["words"].get(word, 0), before, words[word], now)))

    return [
        Change(what, old, new, p, p < LEVEL / len(found) and abs(new - old) >= LEAST_CHANGE)
        for what, old, new, p in found
    ]


def _words(answer: Mapping[str, Any]) -> set[str]:
    """The words of a rationale, in lower case."""
    return {
        word.strip(".,;:!?\"'()").casefold() for span in answer.get("rationale", []) for word in span["text"].split()
    }


def _deciles(values: Sequence[float]) -> list[float]:
    return [float(value) for value in np.quantile(values, np.arange(1, 10) / 10)] if values else [0.0] * 9


def _shares(some: int, of: int, others: int, number: int) -> tuple[float, float, float]:
    """Two shares, and the p value of the chi-squared test that they are the same."""
    table = np.array([[some, of - some], [others, number - others]])
    p = (
        1.0
        if (table.sum(axis=0) == 0).any() or (table.sum(axis=1) == 0).any()
        else float(chi2_contingency(table).pvalue)
    )
    return some / max(of, 1), others / number, p

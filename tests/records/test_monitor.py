"""What moved between a bundle's validation data and its records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from rekd_edge.errors import InputError
from rekd_edge.records.monitor import compare, summary


def answers(
    count: int, seed: int, positive: float = 0.5, ratio: float = 0.1, word: str = "superb"
) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    documents = []
    for _ in range(count):
        label = "pos" if rng.random() < positive else "neg"
        confidence = float(rng.uniform(0.6, 1.0))
        other = "neg" if label == "pos" else "pos"
        documents.append(
            {
                "label": label,
                "scores": {label: confidence, other: 1 - confidence},
                "rationale_ratio": float(rng.normal(ratio, 0.01)),
                "rationale": [{"start": 0, "end": 6, "text": f"{word.title()}, " if label == "pos" else "dull"}],
            }
        )
    return documents


def test_a_summary_by_hand() -> None:
    found = summary(
        [
            {
                "label": "a",
                "scores": {"a": 0.9, "b": 0.1},
                "rationale_ratio": 0.1,
                "rationale": [{"text": "Good. good"}],
            },
            {"label": "b", "scores": {"a": 0.2, "b": 0.8}, "rationale_ratio": 0.3, "rationale": [{"text": "bad"}]},
        ]
    )
    assert (found["n"], found["labels"], found["words"]) == (2, {"a": 1, "b": 1}, {"good": 1, "bad": 1})
    assert found["ratio"][4] == pytest.approx(0.2)
    assert len(found["confidence"]) == 9


def test_data_of_the_same_kind_has_not_moved() -> None:
    reference = summary(answers(1000, seed=0))
    assert not [change for change in compare(reference, answers(500, seed=1)) if change.moved]


@pytest.mark.parametrize(
    ("shift", "what"),
    [
        ({"positive": 0.8}, {"label pos", "label neg"}),
        ({"ratio": 0.13}, {"ratio above"}),
        ({"word": "amazing"}, {"word 'superb'", "word 'amazing'"}),
    ],
)
def test_what_moved_is_named(shift: dict[str, Any], what: set[str]) -> None:
    reference = summary(answers(1000, seed=0))
    moved = [change.what for change in compare(reference, answers(300, seed=1, **shift)) if change.moved]
    assert all(any(found.startswith(each) for found in moved) for each in what)
    assert not [found for found in moved if found.startswith("confidence")]


def test_the_test_is_chi_squared() -> None:
    reference = summary(answers(1000, seed=0))
    records = answers(300, seed=1, positive=0.7)
    change = next(change for change in compare(reference, records) if change.what == "label pos")
    positive = sum(record["label"] == "pos" for record in records)
    before = reference["labels"]["pos"]
    expected = chi2_contingency([[before, 1000 - before], [positive, 300 - positive]]).pvalue
    assert change.p == pytest.approx(expected)
    assert (change.reference, change.records) == (before / 1000, positive / 300)


def test_a_few_records_tell_nothing() -> None:
    with pytest.raises(InputError, match="29 records are too few"):
        compare(summary(answers(100, seed=0)), answers(29, seed=1))

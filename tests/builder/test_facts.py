"""What is said of data before anything is trained on it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rekd_edge.builder.facts import look_at
from rekd_edge.data import DataSettings, load_data
from rekd_edge.errors import InputError


def rows(path: Path, split: str, texts: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in texts]
    (path / f"{split}.jsonl").write_text("\n".join(lines))


def numbered(count: int, label: str) -> list[tuple[str, str]]:
    return [(f"{label} text number {i}", label) for i in range(count)]


def test_counts_by_hand(tmp_path: Path) -> None:
    train = [
        *numbered(90, "neg"),
        *numbered(20, "pos"),
        ("NEG, text: number 3!", "neg"),
        ("neg text number 4 ", "pos"),
        ("", "pos"),
    ]
    rows(tmp_path, "train", train)
    rows(tmp_path, "validation", [("pos text number 7", "pos"), ("fresh", "neg")])
    rows(tmp_path, "test", [("another", "neg"), (" ", "pos")])
    facts = look_at(load_data(str(tmp_path), DataSettings()))
    assert facts.rows == {"train": 113, "validation": 2, "test": 2}
    assert facts.labels == {"neg": 91, "pos": 22}
    assert (facts.duplicates, facts.contradictions, facts.empty, facts.words) == (2, 1, 2, (4, 4))
    assert facts.leaks == 2  # number 7, and the empty text
    said = " ".join(facts.sentences())
    assert all(
        each in said for each in ("imbalanced, 4 to 1", "2 training examples repeat", "1 of them with another label")
    )


def test_clean_data_needs_no_warning() -> None:
    facts = look_at(load_data("builtin:digits", DataSettings()))
    assert len(facts.sentences()) == 1 + (facts.duplicates > 0) + (facts.leaks > 0)
    assert facts.words is None


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (numbered(90, "neg"), "the single label 'neg'"),
        ([*numbered(90, "neg"), *numbered(19, "pos")], "Only 19 training examples have the label 'pos'"),
    ],
)
def test_data_that_nothing_can_be_learnt_from(tmp_path: Path, texts: list[tuple[str, str]], message: str) -> None:
    rows(tmp_path, "train", texts)
    rows(tmp_path, "validation", texts)
    with pytest.raises(InputError, match=message):
        look_at(load_data(str(tmp_path), DataSettings()))

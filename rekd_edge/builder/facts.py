"""What is worth knowing of data before anything is trained on it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rekd_edge.data import DataSource, Examples
from rekd_edge.errors import InputError
from rekd_edge.settings import shown
from rekd_edge.training.defaults import words_of

__all__ = ["Facts", "look_at"]

LEAST_OF_A_LABEL = 20
"""Training examples of the rarest label below which nothing honest can be said."""
IMBALANCED = 4.0
"""The most frequent label over the rarest from which it is worth a sentence."""
NOT_WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Facts:
    """A data set in numbers."""

    task: str
    rows: dict[str, int]
    """Examples by split."""
    labels: dict[str, int]
    """Training examples by label."""
    words: tuple[int, int] | None
    """Median and ninetieth percentile of the texts' words."""
    empty: int
    """Texts without a word, in all splits."""
    duplicates: int
    """Training examples that repeat an earlier one, but for case, spaces and punctuation."""
    contradictions: int
    """Of these, those with another label."""
    leaks: int
    """Examples of other splits that stand in the training split too."""

    def sentences(self) -> list[str]:
        """What was found, a sentence each; the first says what the data is."""
        splits = ", ".join(f"{name} {count:,}" for name, count in self.rows.items())
        labels = ", ".join(f"{shown(name)[1:-1]} {count:,}" for name, count in list(self.labels.items())[:10])
        found = [f"{'texts' if self.task == 'text' else 'images'}: {splits}; labels: {labels}"]

        if self.words is not None:
            found.append(
                f"half of the texts have at most {self.words[0]:,} words, nine in ten at most {self.words[1]:,}"
            )
        if (ratio := max(self.labels.values()) / min(self.labels.values())) >= IMBALANCED:
            found.append(f"the labels are imbalanced, {ratio:.0f} to 1: look at macro-F1 rather than accuracy")
        if self.empty:
            found.append(f"{self.empty:,} texts hold no word; they are kept, and nothing can be learnt from them")
        if self.duplicates:
            other = f", {self.contradictions:,} of them with another label" if self.contradictions else ""
            found.append(f"{self.duplicates:,} training examples repeat an earlier one{other}")
        if self.leaks:
            found.append(f"{self.leaks:,} examples of other splits stand in the training split too, so figures flatter")

        return found


def look_at(data: DataSource) -> Facts:
    """Count what a data set holds.

    Raises:
        InputError: there is no training or test split, there are too few examples of a label, or labels that differ by
            case or spaces alone, or no text holds a word.
    """
    train = data.split("train")
    counts = np.bincount(train.labels, minlength=len(data.label_names))
    present = {name: int(count) for name, count in zip(data.label_names, counts, strict=True)}

    _refuse_alike(list(present))
    rarest = min(present, key=lambda name: present[name])
    if present[rarest] < LEAST_OF_A_LABEL:
        raise InputError(
            f"Only {present[rarest]} training examples have the label {shown(rarest)}, and {LEAST_OF_A_LABEL} are the "
            "least that a model can be measured on; add some, or leave the label out."
        )

    if "test" not in data.splits:
        raise InputError(
            "The data has no test split to measure on; add one, or give all rows in a single file, which is split by "
            "itself."
        )

    empty = (
        sum(not str(text).strip() for examples in data.splits.values() for text in examples.inputs)
        if data.task == "text"
        else 0
    )
    if empty == sum(map(len, data.splits.values())):
        raise InputError("No text holds a word; name the column of the texts with --set data.text_column=….")

    prints = [_fingerprint(each) for each in _contents(train)]
    seen: dict[str, int] = {}
    duplicates = contradictions = 0
    for print_, label in zip(prints, train.labels.tolist(), strict=True):
        if print_ in seen:
            duplicates += 1
            contradictions += seen[print_] != label
        seen.setdefault(print_, label)

    others = [examples for name, examples in data.splits.items() if name != "train"]
    return Facts(
        task=data.task,
        rows={name: len(examples) for name, examples in data.splits.items()},
        labels=present,
        words=words_of(train) if data.task == "text" else None,
        empty=empty,
        duplicates=duplicates,
        contradictions=contradictions,
        leaks=sum(_fingerprint(each) in seen for examples in others for each in _contents(examples)),
    )


def _refuse_alike(labels: list[str]) -> None:
    """Refuse labels that were meant to be one."""
    seen: dict[str, str] = {}
    for label in labels:
        key = label.strip().casefold()
        if key in seen:
            raise InputError(
                f"The labels {shown(seen[key])} and {shown(label)} differ by case or spaces alone; make them one."
            )
        seen[key] = label


def _contents(examples: Examples) -> Iterable[Any]:
    """Texts, or images as they are stored."""
    return examples.inputs if isinstance(examples.inputs, list) else examples.inputs.contents()


def _fingerprint(content: str | bytes) -> str:
    """The same for texts that differ in case, spaces and punctuation alone."""
    raw = (
        NOT_WORDS.sub(" ", content.casefold()).strip().encode("utf-8", "surrogatepass")
        if isinstance(content, str)
        else content
    )
    return hashlib.blake2b(raw, digest_size=16).hexdigest()

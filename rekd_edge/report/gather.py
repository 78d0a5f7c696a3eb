"""What a report says of each system: measured here, or read from what training wrote."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rekd_edge.audit.checks import CHECKS, Finding, Hearing
from rekd_edge.data import DataSource, Examples
from rekd_edge.errors import InputError
from rekd_edge.evaluate import agreement_with_people, marked_words
from rekd_edge.evaluation import classification_metrics, probabilities, top_share
from rekd_edge.models import find_bundle
from rekd_edge.progress import Step
from rekd_edge.runs import RunFolder
from rekd_edge.runtime.seal import LAYOUT
from rekd_edge.stability import agreement_of, selection_of, stability
from rekd_edge.systems import Answers, BundleSystem, Rows, RunSystem, TextRows, open_system

__all__ = ["SHARES", "Judged", "compare", "judge"]

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes of the rationale at which the predictor is asked."""
TIMED = 50
"""Predictions one by one whose median is given."""


@dataclass
class Judged:
    """A system and what is known of it."""

    name: str
    kind: str
    """`run` or `bundle`."""
    method: str
    system: RunSystem | BundleSystem
    rows: Rows
    answers: Answers
    labels: NDArray[np.int64]
    accuracy: float
    macro_f1: float
    ratio: float
    control: float | None
    """Accuracy on dev of the control that counts, for a run that has one."""
    size_bytes: int
    milliseconds: float | None
    """Median of single predictions on this machine, for a bundle."""
    curve: list[tuple[float, float]]
    """(share of the features, accuracy of the predictor on those with the highest margins)."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """What training wrote of each epoch."""
    findings: list[Finding] = field(default_factory=list)
    agreement: dict[str, float] = field(default_factory=dict)
    """With what people marked, in words, where that is known."""
    stability: dict[str, dict[str, float]] = field(default_factory=dict)
    """`mask_overlap` and `label_agreement` with itself on changed texts, and with the other systems of the report."""

    @property
    def scores(self) -> NDArray[np.float64]:
        """Probabilities `[n, classes]`."""
        return probabilities(self.answers.logits)


def judge(path: Path, data: DataSource, examples: Examples, audited: bool, step: Step) -> Judged:
    """Ask a run or a bundle everything that a report says of it.

    Args:
        path: its folder.
        data: where the examples are from; its train split teaches the audit's outside reader.
        examples: what it is asked about.
        audited: ask the audit's questions too.
        step: told what is done now.

    Raises:
        InputError: neither run nor bundle, data of another kind or with other labels, or a control.
    """
    path = find_bundle(path)
    system = open_system(path, data)
    rows = system.encode(examples.inputs)
    answers = system.answer(rows)
    if len(answers.rows) != len(examples):
        raise InputError(f"{path} is a control, whose rationales are random; report on a run that selects.")

    step(1, 3, f"{path.name}: smaller and larger rationales")
    figures = classification_metrics(answers.logits.argmax(axis=1), examples.labels)
    bundle = isinstance(system, BundleSystem)
    written = {} if bundle else RunFolder(path).read_metrics()

    judged = Judged(
        name=path.name,
        kind="bundle" if bundle else "run",
        method=system.method,
        system=system,
        rows=rows,
        answers=answers,
        labels=examples.labels,
        accuracy=figures["accuracy"],
        macro_f1=figures["macro_f1"],
        ratio=float(np.mean([mask.mean() if len(mask) else 0.0 for mask in answers.masks])),
        control=written.get("random_mask_accuracy"),
        size_bytes=sum(file.stat().st_size for file in _model_files(path, bundle)),
        milliseconds=_milliseconds(system, examples) if isinstance(system, BundleSystem) else None,
        curve=[] if system.whole_input else _curve(system, rows, answers, examples.labels),
        epochs=[] if bundle else RunFolder(path).read_record().get("epochs", []),
        agreement=_agreement(examples, rows, answers),
    )

    if audited:
        step(2, 3, f"{path.name}: audit")
        train = data.splits.get("train")
        outsider = None if train is None else (system.encode(train.inputs), train.labels)
        hearing = Hearing(system, rows, examples.labels, outsider)
        judged.findings = [found for check in CHECKS if (found := check(hearing)) is not None]

    return judged


def _agreement(examples: Examples, rows: Rows, answers: Answers) -> dict[str, float]:
    if examples.rationale_spans is None or not isinstance(rows, TextRows):
        return {}

    parts = zip(examples.inputs, answers.masks, answers.margins, examples.rationale_spans, strict=True)
    return agreement_with_people(
        [
            marked_words(str(text), rows.offsets(row), mask, margins, spans)
            for row, (text, mask, margins, spans) in enumerate(parts)
        ]
    )


def compare(systems: Sequence[Judged], examples: Examples) -> None:
    """Fill in how stable the rationales of each system are, and how much it has in common with the others."""
    selections = [selection_of(examples.inputs, each.rows, each.answers) for each in systems]
    for number, judged in enumerate(systems):
        judged.stability = stability(judged.system, examples) | {
            other.name: agreement_of(selections[number], selections[place])
            for place, other in enumerate(systems)
            if place != number
        }


def _curve(
    system: RunSystem | BundleSystem, rows: Rows, answers: Answers, labels: NDArray[np.int64]
) -> list[tuple[float, float]]:
    """Accuracy of the predictor on the best features, over their share."""
    points = []
    for share in SHARES:
        masks = [top_share(margins, share) if len(margins) else np.zeros(0, bool) for margins in answers.margins]
        right = system.classify(rows, masks).argmax(axis=1) == labels
        points.append((share, float(right.mean())))

    return points


def _milliseconds(system: BundleSystem, examples: Examples) -> float:
    """Median time of a single prediction, preprocessing included."""
    taken = []
    for source in _first(examples.inputs, TIMED):
        start = time.perf_counter()
        system.rationalizer(source)
        taken.append(time.perf_counter() - start)

    return 1000 * median(taken)


def _first(inputs: Any, count: int) -> Sequence[Any]:
    return [inputs[i] for i in range(min(count, len(inputs)))]


def _model_files(path: Path, bundle: bool) -> list[Path]:
    if bundle:
        return [path / LAYOUT.graph]
    return [RunFolder(path).model_file]

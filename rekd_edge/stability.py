"""`evaluate --stability` and `--against`: the rationales of one system on changed texts, or beside those of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rekd_edge.data import Examples
from rekd_edge.data.eraser import words_of
from rekd_edge.errors import InputError
from rekd_edge.evaluation import mask_overlap
from rekd_edge.evaluation.masks import Mask
from rekd_edge.evaluation.stability import CHANGES
from rekd_edge.evaluation.words import in_words
from rekd_edge.progress import steps
from rekd_edge.systems import Answers, Rows, System, TextRows

__all__ = ["Selection", "agreement_of", "selected_by", "selection_of", "stability"]

PART = 512
"""Examples that are asked about together."""
SEED = 2026


@dataclass(frozen=True)
class Selection:
    """What a system selects of examples and decides, in units that others share."""

    masks: list[Mask]
    """Whitespace words of a text, or patches of an image."""
    labels: NDArray[np.int64]


def selected_by(system: System, inputs: Iterable[Any]) -> Selection:
    """Ask a system about texts or images.

    Raises:
        InputError: it is a control.
    """
    rows = system.encode(inputs)
    answers = system.answer(rows)
    if len(answers.rows) != len(rows):
        raise InputError(f"{system.name} is a control, whose rationales are random; compare runs that select.")

    return selection_of(inputs, rows, answers)


def selection_of(inputs: Iterable[Any], rows: Rows, answers: Answers) -> Selection:
    """What answers select, in whitespace words where the inputs are texts."""
    masks = answers.masks
    if isinstance(rows, TextRows):
        masks = [
            in_words(words_of(str(text)), rows.offsets(row), mask, margins)[0]
            for row, (text, mask, margins) in enumerate(zip(inputs, masks, answers.margins, strict=True))
        ]

    return Selection(masks, answers.logits.argmax(axis=1))


def agreement_of(one: Selection, other: Selection) -> dict[str, float]:
    """`mask_overlap`: mean Jaccard index of the selected words or patches; `label_agreement`: share of equal labels."""
    return {
        "mask_overlap": mask_overlap(one.masks, other.masks),
        "label_agreement": float(np.mean(one.labels == other.labels)),
    }


def stability(
    system: System, examples: Examples, others: Sequence[System] = (), *, changed: bool = True
) -> dict[str, dict[str, float]]:
    """How much of a rationale stays under changes that mean nothing, and how much other systems select too.

    Args:
        system: a run or a bundle.
        examples: what it is asked about.
        others: runs of other seeds, or bundles of the same run, that read the same data.
        changed: ask about changed texts (`typos`, `case`, `whitespace`); images are not changed.

    Returns:
        `mask_overlap` and `label_agreement`, for each change and each other system's name.
    """
    sums: dict[str, dict[str, float]] = {}
    rng = np.random.default_rng(SEED)

    with steps("evaluate") as step:
        for start in range(0, len(examples), PART):
            step(start, len(examples), "comparing rationales")
            inputs = examples.select(range(start, min(start + PART, len(examples)))).inputs
            own = selected_by(system, inputs)
            found = {other.name: selected_by(other, inputs) for other in others}

            if changed and isinstance(inputs, list):
                for name, change in CHANGES.items():
                    found[name] = selected_by(system, [change(str(text), rng) for text in inputs])

            for name, selection in found.items():
                for figure, value in agreement_of(own, selection).items():
                    of_name = sums.setdefault(name, {})
                    of_name[figure] = of_name.get(figure, 0.0) + value * len(inputs) / len(examples)

    return sums

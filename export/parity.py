"""Compares the answers of a graph with those of the run, row by row, in plain ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rekd_edge.modeling import RationaleModel
from rekd_edge.runtime.session import open_session

__all__ = ["Agreement", "Answers", "agreement", "graph_answers", "invariance", "near_ties", "torch_answers"]

LOGIT_TOLERANCE = 1e-4
"""Also of `rationale_scores`."""
SCORES = "rationale_scores"
NEAR_TIE = 1e-5
BATCH = 16

Feed = dict[str, NDArray[Any]]
"""One unpadded row, each array with a batch axis of 1."""


@dataclass(frozen=True)
class Answers:
    """A model's answers to rows: logits [rows, classes], margins and masks [positions] a row, and where it gives
    `rationale_scores`, those [positions, classes] a row."""

    logits: NDArray[np.float32]
    margins: list[NDArray[np.float32]]
    masks: list[NDArray[np.bool_]]
    scores: list[NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class Agreement:
    """How far two models agree on the same rows."""

    rows: int
    positions: int
    mask_differences: int
    """Positions whose masks differ, near-ties apart."""
    near_ties: int
    """Positions whose masks differ and whose margin, or whose row's two best margins, lie within 1e-5."""
    mask_agreement: float
    """Share of the features on which the masks agree."""
    label_differences: int
    label_agreement: float
    largest_logit_difference: float
    """Over the rows whose masks are equal."""
    largest_score_difference: float | None = None
    """Of `rationale_scores`; None where there are none."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def torch_answers(model: RationaleModel, feeds: Sequence[Feed]) -> Answers:
    """The answers of the run itself, row by row."""
    logits, margins, masks, scores = [], [], [], []

    with torch.no_grad():
        for feed in feeds:
            output = model(**{name: torch.from_numpy(value) for name, value in feed.items()})
            logits.append(output.logits.numpy()[0])
            margins.append(output.margin.numpy()[0])
            masks.append(output.mask.numpy()[0])
            scores += [found.numpy()[0] for name, found in model.extra_outputs(output).items() if name == SCORES]

    return Answers(np.stack(logits), margins, masks, scores or None)


def graph_answers(
    path: Path, feeds: Sequence[Feed], pad_id: int = 0, batch: int = 1, threads: int = 1, width: int = 0
) -> Answers:
    """The answers of a graph, `batch` rows at a time; texts are padded to the longest of them, and to `width`."""
    session = open_session(path, threads)
    names = ["logits", "selection_margin", "rationale_mask"]
    names += [output.name for output in session.get_outputs() if output.name == SCORES]

    logits, margins, masks, scores = [], [], [], []

    for start in range(0, len(feeds), batch):
        rows = feeds[start : start + batch]
        outputs = session.run(names, _stacked(rows, pad_id, width))

        for row, (q, margin, mask, *extra) in zip(rows, zip(*outputs, strict=True), strict=True):
            length = row["input_ids"].shape[1] if "input_ids" in row else len(mask)
            logits.append(q)
            margins.append(margin[:length])
            masks.append(mask[:length])
            scores += [values[:length] for values in extra]

    return Answers(np.stack(logits), margins, masks, scores or None)


def agreement(reference: Answers, other: Answers) -> Agreement:
    """Compare two sets of answers to the same rows. Near-ties are judged by the margins of the reference."""
    differing = near = features = 0
    largest = 0.0

    for i, (margin, a, b) in enumerate(zip(reference.margins, reference.masks, other.masks, strict=True)):
        features += int((margin > np.finfo(np.float32).min).sum())
        unequal = a != b

        if unequal.any():
            tied = near_ties(margin)
            near += int((unequal & tied).sum())
            differing += int((unequal & ~tied).sum())
        else:
            largest = max(largest, float(np.abs(reference.logits[i] - other.logits[i]).max()))

    rows = len(reference.masks)
    labels = int((reference.logits.argmax(axis=1) != other.logits.argmax(axis=1)).sum())

    return Agreement(
        rows=rows,
        positions=sum(map(len, reference.masks)),
        mask_differences=differing,
        near_ties=near,
        mask_agreement=1.0 - (differing + near) / max(features, 1),
        label_differences=labels,
        label_agreement=1.0 - labels / rows,
        largest_logit_difference=largest,
        largest_score_difference=_largest_difference(reference.scores, other.scores),
    )


def invariance(path: Path, feeds: Sequence[Feed], pad_id: int, alone: Answers | None = None) -> dict[str, Any]:
    """Check that a row's answer does not depend on its batch, its place, padding or threads.

    The answer to each row alone on one thread is compared with that in shuffled batches on two threads, and texts also
    with themselves alone but padded to the longest of all.

    Args:
        path: the graph.
        feeds: its inputs.
        pad_id: of the padding.
        alone: the graph's answers to each row alone on one thread, where they are known.

    Returns:
        `rows` and `positions` (of the rows, padding apart), and what differed in all comparisons together:
        `mask_differences` and `near_ties` in positions, `label_differences` in rows; `compared` names them.
    """
    if alone is None:
        alone = graph_answers(path, feeds, pad_id)

    order = np.random.default_rng(0).permutation(len(feeds)).tolist()
    together = graph_answers(path, [feeds[i] for i in order], pad_id, batch=BATCH, threads=2)
    found = {f"shuffled batches of {BATCH} on 2 threads": agreement(_selected(alone, order), together)}

    lengths = [feed["input_ids"].shape[1] if "input_ids" in feed else 0 for feed in feeds]
    width = max(lengths)
    shorter = [i for i, length in enumerate(lengths) if length < width]  # padding changes no others
    if shorter:
        padded = graph_answers(path, [feeds[i] for i in shorter], pad_id, width=width)
        found[f"alone, padded to {width}"] = agreement(_selected(alone, shorter), padded)

    return {
        "rows": len(feeds),
        "positions": sum(map(len, alone.masks)),
        "mask_differences": sum(each.mask_differences for each in found.values()),
        "near_ties": sum(each.near_ties for each in found.values()),
        "label_differences": sum(each.label_differences for each in found.values()),
        "compared": list(found),
    }


def _largest_difference(one: list[NDArray[np.float32]] | None, other: list[NDArray[np.float32]] | None) -> float | None:
    if one is None or other is None:
        return None
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(one, other, strict=True))


def _selected(answers: Answers, rows: list[int]) -> Answers:
    """The answers to some rows, in that order."""
    return Answers(answers.logits[rows], [answers.margins[i] for i in rows], [answers.masks[i] for i in rows])


def near_ties(margin: NDArray[np.float32], width: float = NEAR_TIE) -> NDArray[np.bool_]:
    """Positions of a row too close to the threshold, or to being the fallback, to be told apart: bool [positions]."""
    tied = np.abs(margin) <= width
    if len(margin) > 1 and not (margin > 0).any():
        best = np.sort(margin)[::-1]
        if best[0] - best[1] <= width:
            tied = tied | (margin >= best[1])

    return tied


def _stacked(rows: Sequence[Feed], pad_id: int, width: int) -> Feed:
    if "pixel_values" in rows[0]:
        return {"pixel_values": np.concatenate([row["pixel_values"] for row in rows])}

    width = max(width, *(row["input_ids"].shape[1] for row in rows))

    def padded(name: str, value: int) -> NDArray[Any]:
        parts = [np.pad(row[name], ((0, 0), (0, width - row[name].shape[1])), constant_values=value) for row in rows]
        return np.concatenate(parts)

    return {"input_ids": padded("input_ids", pad_id), "attention_mask": padded("attention_mask", 0)}

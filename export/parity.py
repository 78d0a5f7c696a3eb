"""Does the graph say what the run says? Compared row by row with plain ONNX Runtime."""

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

__all__ = ["Agreement", "Answers", "agreement", "graph_answers", "invariance", "torch_answers"]

LOGIT_TOLERANCE = 1e-4
NEAR_TIE = 1e-5
BATCH = 16

Feed = dict[str, NDArray[Any]]
"""One unpadded row, each array with a batch axis of 1."""


@dataclass(frozen=True)
class Answers:
    """What a model says of each row: logits [rows, classes], and margins and masks [positions] a row."""

    logits: NDArray[np.float32]
    margins: list[NDArray[np.float32]]
    masks: list[NDArray[np.bool_]]


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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)


def torch_answers(model: RationaleModel, feeds: Sequence[Feed]) -> Answers:
    """Ask the run itself, row by row."""
    logits, margins, masks = [], [], []
    with torch.no_grad():
        for feed in feeds:
            output = model(**{name: torch.from_numpy(value) for name, value in feed.items()})
            logits.append(output.logits.numpy()[0])
            margins.append(output.margin.numpy()[0])
            masks.append(output.mask.numpy()[0])
    return Answers(np.stack(logits), margins, masks)


def graph_answers(path: Path, feeds: Sequence[Feed], pad_id: int = 0, batch: int = 1, threads: int = 1) -> Answers:
    """Ask a graph, `batch` rows at a time padded to the longest among them."""
    session = open_session(path, threads)
    names = ["logits", "selection_margin", "rationale_mask"]
    logits, margins, masks = [], [], []
    for start in range(0, len(feeds), batch):
        rows = feeds[start : start + batch]
        outputs = session.run(names, _stacked(rows, pad_id))
        for row, (q, margin, mask) in zip(rows, zip(*outputs, strict=True), strict=True):
            length = row["input_ids"].shape[1] if "input_ids" in row else len(mask)
            logits.append(q)
            margins.append(margin[:length])
            masks.append(mask[:length])
    return Answers(np.stack(logits), margins, masks)


def agreement(reference: Answers, other: Answers) -> Agreement:
    """Compare two sets of answers to the same rows; near-ties are those of the reference."""
    differing = near = features = 0
    largest = 0.0
    for i, (margin, a, b) in enumerate(zip(reference.margins, reference.masks, other.masks, strict=True)):
        features += int((margin > np.finfo(np.float32).min).sum())
        unequal = a != b
        if unequal.any():
            tied = _near_ties(margin)
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
    )


def invariance(path: Path, feeds: Sequence[Feed], pad_id: int) -> dict[str, Any]:
    """Does a row's answer depend on batch mates, padding or threads? Alone on one thread against batches on two."""
    alone = graph_answers(path, feeds, pad_id)
    # rows of mixed length stand together, so that most are padded
    together = graph_answers(path, feeds, pad_id, batch=BATCH, threads=2)
    compared = agreement(alone, together)
    return {
        "rows": compared.rows,
        "positions": compared.positions,
        "mask_differences": compared.mask_differences,
        "near_ties": compared.near_ties,
        "label_differences": compared.label_differences,
    }


def _near_ties(margin: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Positions too close to the threshold, or to being the fallback, to be told apart: bool [positions]."""
    tied = np.abs(margin) <= NEAR_TIE
    if len(margin) > 1 and not (margin > 0).any():
        best = np.sort(margin)[::-1]
        if best[0] - best[1] <= NEAR_TIE:
            tied = tied | (margin >= best[1])
    return tied


def _stacked(rows: Sequence[Feed], pad_id: int) -> Feed:
    if "pixel_values" in rows[0]:
        return {"pixel_values": np.concatenate([row["pixel_values"] for row in rows])}
    width = max(row["input_ids"].shape[1] for row in rows)

    def padded(name: str, value: int) -> NDArray[Any]:
        parts = [np.pad(row[name], ((0, 0), (0, width - row[name].shape[1])), constant_values=value) for row in rows]
        return np.concatenate(parts)

    return {"input_ids": padded("input_ids", pad_id), "attention_mask": padded("attention_mask", 0)}

"""Examples to look at: texts with their rationale marked, images with the selected patches bright."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rekd_edge.data import Examples
from rekd_edge.report.gather import Judged
from rekd_edge.runtime.prediction import merge_spans
from rekd_edge.systems import ImageRows
from rekd_edge.terminal import printable

__all__ = ["UNSURE", "Card", "Piece", "cards"]

UNSURE = 0.7
"""Below this probability a prediction counts as unsure."""
NEAR_TIE = 0.05
"""Margins this near to 0 make an example a near tie: a little more or less, and another feature is shown."""
LONGEST_TEXT = 1200
"""Characters of a text that are shown; what is cut off says so."""
DIMMED = 0.25
SIDE = 160


@dataclass(frozen=True)
class Piece:
    """A stretch of a text."""

    text: str
    selected: bool
    marked: bool
    """By a person."""


@dataclass(frozen=True)
class Card:
    """One example as a system answered it."""

    label: str
    probability: float
    truth: str
    kinds: tuple[str, ...]
    """`wrong` or `right`, `unsure`, `near tie`."""
    share: float
    pieces: tuple[Piece, ...] = ()
    picture: str | None = None
    """PNG as a data URI."""
    alternative: str = ""
    """The picture in words."""

    @property
    def wrong(self) -> bool:
        """Whether the label is not the true one."""
        return "wrong" in self.kinds


def cards(system: Judged, examples: Examples, names: Sequence[str], count: int) -> list[Card]:
    """Up to `count` examples, those first that say most: wrong, then unsure, then near ties; evenly from the rest."""
    scores = system.scores
    decided = scores.argmax(axis=1)
    wrong = decided != examples.labels
    unsure = scores.max(axis=1) < UNSURE
    tied = np.array([len(row) > 0 and float(np.abs(row).min()) < NEAR_TIE for row in system.answers.margins])

    kinds = [
        ("wrong" if bad else "right", *(["unsure"] if doubt else []), *(["near tie"] if tie else []))
        for bad, doubt, tie in zip(wrong, unsure, tied, strict=True)
    ]
    chosen = _chosen([wrong, unsure, tied, np.ones(len(examples), bool)], count)

    return [
        Card(
            label=names[decided[i]],
            probability=float(scores[i].max()),
            truth=names[examples.labels[i]],
            kinds=kinds[i],
            share=float(system.answers.masks[i].mean()) if len(system.answers.masks[i]) else 0.0,
            **_shown(system, examples, i),  # type: ignore[arg-type]
        )
        for i in chosen
    ]


def _chosen(groups: Sequence[NDArray[np.bool_]], count: int) -> list[int]:
    """Up to a quarter of the count from each group, and the last group fills what is left."""
    chosen: list[int] = []
    for number, group in enumerate(groups):
        room = count - len(chosen) if number == len(groups) - 1 else count // 4
        fresh = [int(i) for i in np.flatnonzero(group) if i not in chosen]
        step = max(1, len(fresh) // max(room, 1))
        chosen += fresh[::step][:room]

    return sorted(chosen)


def _shown(system: Judged, examples: Examples, row: int) -> dict[str, object]:
    mask = system.answers.masks[row]
    if isinstance(system.rows, ImageRows):
        grid = system.rows.grid
        where = ", ".join(f"row {place // grid[1] + 1} column {place % grid[1] + 1}" for place in np.flatnonzero(mask))
        return {"picture": _picture(system.rows.pixels[row], mask.reshape(grid)), "alternative": f"selected: {where}"}

    encoded = system.rows.encoded[row]
    offsets = [offset for offset, feature in zip(encoded.offsets, encoded.feature, strict=True) if feature]
    marked = [] if examples.rationale_spans is None else examples.rationale_spans[row]
    return {"pieces": tuple(_pieces(str(examples.inputs[row]), merge_spans(offsets, mask.tolist()), marked))}


def _pieces(text: str, selected: Sequence[tuple[int, int]], marked: Sequence[tuple[int, int]]) -> list[Piece]:
    """A text in stretches that are selected, marked, both or neither."""
    end = min(len(text), LONGEST_TEXT)
    edges = sorted({0, end, *(min(edge, end) for span in [*selected, *marked] for edge in span)})

    def within(place: int, spans: Sequence[tuple[int, int]]) -> bool:
        return any(start <= place < stop for start, stop in spans)

    pieces = [
        Piece(printable(text[start:stop]), within(start, selected), within(start, marked))
        for start, stop in pairwise(edges)
    ]
    return [*pieces, Piece(f" … ({len(text) - end} more characters)", False, False)] if end < len(text) else pieces


def _picture(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    """The image with its selected patches as they are and the rest dimmed, as a data URI."""
    from PIL import Image

    height, width = pixels.shape[:2]
    rows, columns = mask.shape
    shown = mask[np.minimum(np.arange(height) * rows // height, rows - 1)][:, np.arange(width) * columns // width]
    dimmed = pixels.mean(axis=-1, keepdims=True) * DIMMED
    picture = Image.fromarray(np.where(shown[..., None], pixels, dimmed).astype(np.uint8))

    factor = max(1, SIDE // max(width, height))
    content = io.BytesIO()
    picture.resize((width * factor, height * factor), resample=0).save(content, format="PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()

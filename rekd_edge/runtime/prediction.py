"""What a prediction is: the label, its probability, and the features that the decision rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

__all__ = ["ClassRationale", "ImagePrediction", "Span", "TextPrediction", "merge_spans"]


class Span(TypedDict):
    """A stretch of the input string: `text == string[start:end]`, in Unicode code points."""

    start: int
    end: int
    text: str


class ClassRationale(TypedDict):
    """What speaks for one label: its spans, and its score of every token, 0 to 1."""

    rationale: list[Span]
    scores: list[float]


@dataclass(frozen=True)
class TextPrediction:
    """Label and rationale of one text.

    `mask` and `tokens` list features only (no special tokens); `scores` maps each label to its probability;
    `rationale_ratio` is |M| / L, 0 for a text without tokens; `truncated` says that the end of the text was not read.
    `class_rationales` maps each label to its own rationale, for bundles that score tokens for every label (`rtp`);
    None, and no key of the document, for others.
    """

    label: str
    label_id: int
    scores: dict[str, float]
    rationale: list[Span]
    mask: list[int]
    tokens: list[str]
    rationale_ratio: float
    truncated: bool
    class_rationales: dict[str, ClassRationale] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The prediction as one JSON document."""
        fields = asdict(self)
        if self.class_rationales is None:
            del fields["class_rationales"]
        return fields


@dataclass(frozen=True)
class ImagePrediction:
    """Label and rationale of one image: `mask` holds the patch grid row by row, `patch_size` is in model pixels."""

    label: str
    label_id: int
    scores: dict[str, float]
    mask: list[list[int]]
    patch_size: int
    rationale_ratio: float

    def to_dict(self) -> dict[str, Any]:
        """The prediction as one JSON document."""
        return asdict(self)


def merge_spans(offsets: Sequence[tuple[int, int]], mask: Sequence[int]) -> list[tuple[int, int]]:
    """Merge neighbouring selected features into (start, end) spans, from the first start to the last end.

    Spans that share characters (the byte tokens of one emoji) are merged too, and empty ones dropped.
    """
    spans: list[tuple[int, int]] = []
    previous_selected = False

    for (start, end), selected in zip(offsets, mask, strict=True):
        if selected and start < end:
            if spans and (previous_selected or start < spans[-1][1]):
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((start, end))

        previous_selected = bool(selected) and (start < end or previous_selected)

    return spans

"""What a prediction is: the label, its probability, and the features that the decision rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from rekd_edge.errors import InputError

__all__ = [
    "ClassRationale",
    "ImagePrediction",
    "Span",
    "TextPrediction",
    "conformal_of",
    "merge_spans",
    "possible_labels",
]


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


def conformal_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a bundle's manifest promises: `coverage`, and the `threshold` that keeps it.

    Raises:
        InputError: it promises nothing.
    """
    stated = manifest.get("conformal")
    if stated is None:
        raise InputError(
            "This bundle states no coverage; train with --set data.conformal_share=0.2 and export again, or give a "
            "probability of your own with --abstain-below."
        )
    return stated


def possible_labels(scores: Mapping[str, float], manifest: Mapping[str, Any]) -> list[str]:
    """The labels whose probability reaches the bundle's threshold.

    Raises:
        InputError: the bundle states none.
    """
    threshold = conformal_of(manifest)["threshold"]
    return [label for label, score in scores.items() if score >= threshold]

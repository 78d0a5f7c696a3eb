"""`evaluate --scores`: another system's scores of words, judged as a rationale of ours is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rekd_edge.data import DataSettings, load_data
from rekd_edge.data.eraser import words_of
from rekd_edge.errors import InputError
from rekd_edge.evaluation import (
    classification_metrics,
    iou_f1,
    rationale_auprc,
    rationale_ratio,
    rationale_shape,
    token_agreement,
    top_share,
)
from rekd_edge.evaluation.masks import Mask
from rekd_edge.evaluation.words import mask_of, words_within
from rekd_edge.lines import text_lines
from rekd_edge.settings import shown

__all__ = ["evaluate_scores"]


class Line(BaseModel):
    """What a system says of one text."""

    model_config = ConfigDict(extra="forbid")

    scores: list[Annotated[float, Field(allow_inf_nan=False)]]
    """One for each whitespace word; the higher the more it matters."""
    mask: list[Annotated[int, Field(ge=0, le=1)]] | None = None
    """The words that it selects; those with the highest scores if not given."""
    label: str | None = None
    """Its decision."""


def evaluate_scores(
    file: Path, spec: str, settings: DataSettings | None = None, split: str = "test", ratio: float | None = None
) -> dict[str, Any]:
    """Measure how scores of words agree with what people marked, and the labels if they are given.

    Args:
        file: a `.jsonl` file with a line for each example, in the order of the split, as
            `{"scores": [0.1, …], "mask": [0, 1, …], "label": "pos"}`; `mask` and `label` may be left out.
        spec: the data SPEC, texts whose true rationale is known.
        settings: columns and limits of the data.
        split: which split; `all` for every one.
        ratio: share of the words that counts as selected where the lines have no mask.

    Returns:
        `n`, `rationale_ratio` and its shape, `token_f1`, `iou_f1`, `auprc` and the like, and with labels `accuracy` and
        `macro_f1`, as `evaluate` gives them.

    Raises:
        InputError: a line is not as above, lines and examples differ in number, or no one knows the true rationale.
    """
    data = load_data(spec, settings or DataSettings())
    examples = data.split(split)
    if data.task != "text" or examples.rationale_spans is None:
        raise InputError(f"{spec} does not say what people marked; give eraser:FOLDER or builtin:planted.")

    lines = list(_lines(file))
    if len(lines) != len(examples):
        raise InputError(
            f"{file} has {len(lines)} lines and the split {len(examples)} examples; give one line for each."
        )

    if ratio is not None and all(line.mask is not None for line in lines):
        raise InputError(f"Every line of {file} has a mask, which --ratio does not change; leave one of them out.")

    masks, scores, spans = [], [], []
    for number, (line, text, marked) in enumerate(
        zip(lines, examples.inputs, examples.rationale_spans, strict=True), 1
    ):
        words = words_of(str(text))
        masks.append(_mask(line, len(words), ratio, f"Line {number} of {file}"))
        scores.append(np.array(line.scores))
        spans.append(words_within(words, marked))

    truth = [mask_of(len(mask), marked) for mask, marked in zip(masks, spans, strict=True)]
    report = {"n": len(lines), "rationale_ratio": rationale_ratio(masks), **rationale_shape(masks)}
    report |= token_agreement(masks, truth)
    report |= {"iou_f1": iou_f1(masks, spans), "auprc": rationale_auprc(scores, truth)}

    return report | _decisions(lines, data.label_names, examples.labels, file)


def _lines(file: Path) -> Iterator[Line]:
    try:
        with file.open("rb") as stream:
            raw = list(text_lines(stream, str(file)))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give a .jsonl file of scores.") from error

    for number, line in enumerate(raw, start=1):
        try:
            yield Line.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "the line"
            raise InputError(f"Line {number} of {file} holds no scores: {name}: {first['msg']}; mend it.") from error


def _mask(line: Line, words: int, ratio: float | None, place: str) -> Mask:
    for name, values in {"scores": line.scores, "mask": line.mask}.items():
        if values is not None and len(values) != words:
            raise InputError(f"{place} has {len(values)} {name} for {words} words; give one for each whitespace word.")

    if line.mask is not None:
        return np.array(line.mask, dtype=bool)
    if ratio is None or not 0 < ratio <= 1:
        raise InputError(f"{place} has no mask; say with --ratio which share of the words counts as selected.")

    return top_share(np.array(line.scores), ratio) if words else np.zeros(0, dtype=bool)


def _decisions(lines: list[Line], names: list[str], labels: NDArray[np.int64], file: Path) -> dict[str, float]:
    """Accuracy and macro-F1 of the lines' labels; nothing without any."""
    given = [line.label for line in lines if line.label is not None]
    if not given:
        return {}
    if len(given) < len(lines):
        raise InputError(f"{file} gives a label on {len(given)} of {len(lines)} lines; give all or none.")

    known = {name.casefold(): number for number, name in enumerate(names)}
    unknown = next((label for label in given if label.casefold() not in known), None)
    if unknown is not None:
        raise InputError(
            f"{file} has the label {shown(unknown)}, the data {', '.join(names[:5])}; use the data's names."
        )

    return classification_metrics(np.array([known[label.casefold()] for label in given]), labels)

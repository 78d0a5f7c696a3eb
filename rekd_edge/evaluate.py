"""`rekd-edge evaluate`: the same figures for a run (torch) and for a bundle (ONNX Runtime)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rekd_edge.data import DataSettings, DataSource, Examples, load_data
from rekd_edge.data.eraser import words_of
from rekd_edge.data.sampling import stratified_sample
from rekd_edge.errors import InputError
from rekd_edge.evaluation import (
    brier_score,
    classification_metrics,
    expected_calibration_error,
    faithfulness,
    iou_f1,
    probabilities,
    rationale_agreement,
    rationale_auprc,
    rationale_ratio,
    rationale_shape,
    token_agreement,
)
from rekd_edge.evaluation.masks import Mask
from rekd_edge.evaluation.words import Window, in_words, mask_of, merged, windows_of, words_within
from rekd_edge.progress import steps
from rekd_edge.runtime.text import allowed_tokens
from rekd_edge.stability import stability
from rekd_edge.systems import BundleSystem, Rows, RunSystem, System, TextRows, open_system

if TYPE_CHECKING:
    from rekd_edge.training.inference import Masks

__all__ = ["agreement_with_people", "evaluate", "marked_words", "text_windows"]

PART = 512
"""Examples that are read, answered and measured together, so that memory does not grow with their number."""


Span = tuple[int, int]
MarkedWords = tuple[Mask, NDArray[np.float64], list[Span]]
"""Of a text: its words' mask and scores, and the spans of words that people marked."""


@dataclass
class Seen:
    """What was answered so far, in the order of the examples; a control answers several times an example."""

    scores: list[NDArray[np.float64]] = field(default_factory=list)
    labels: list[NDArray[np.int64]] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    alone: list[NDArray[np.int64]] = field(default_factory=list)
    """Label ids from the rationale alone, of a method that decides from more than that."""
    pieces: list[tuple[Mask, Mask]] = field(default_factory=list)
    """Masks and true rationales in the tokenizer's pieces."""
    words: list[MarkedWords] = field(default_factory=list)
    """Masks, scores and marked spans in words."""


def evaluate(
    path: Path,
    spec: str,
    settings: DataSettings | None = None,
    split: str = "test",
    limit: int | None = None,
    masks: Masks = "deterministic",
    *,
    windows: bool = False,
    faithful: bool = False,
    stable: bool = False,
    against: Sequence[Path] = (),
) -> dict[str, Any]:
    """Measure a run or a bundle on one split.

    Args:
        path: a run folder or a bundle.
        spec: the data SPEC.
        settings: columns and limits of the data.
        split: which split; `all` for every one.
        limit: at most so many examples, a stratified sample.
        masks: of a run: `deterministic`, as on the device, or `sampled` once an example from the uncalibrated margins,
            as the published code of arXiv 2601.22531 evaluates.
        windows: read texts longer than the model's `max_length` in overlapping windows, with one answer a text: the
            mean of the windows' probabilities.
        faithful: measure sufficiency and comprehensiveness too, which takes twelve passes of the predictor.
        stable: compare rationales with those of the same texts with typos, other case and other whitespace.
        against: other runs or bundles of the same data, whose rationales are compared with these: other seeds, or the
            int8 bundle of an fp32 one.

    Returns:
        `n`, `accuracy`, `macro_f1`, `ece`, `brier`, `rationale_ratio`, and the shape of the rationales (`ratio_sd`,
        `spans`, `span_length`, `contiguity`). Where the true rationale is known the agreement with it, in the
        tokenizer's pieces (`rationale_precision`, …) and in whitespace words (`token_f1`, `iou_f1`, `auprc`, …). With
        `faithful` the figures of `evaluation.faithfulness`. Of a method that decides from more than its rationale
        `rationale_accuracy`, from that alone. `stability` where it is asked for. docs/evaluation.md spells
        out the conventions.

    Raises:
        InputError: neither run nor bundle, data of another modality or label set, or sampled masks of something that
            samples none.
    """
    if masks == "sampled" and (path / "manifest.json").is_file():
        raise InputError("A bundle's masks are deterministic; give a run, or leave --masks out.")

    data, examples = _examples(spec, settings or DataSettings(), split, limit)
    system = open_system(path, data)
    if stable and data.task != "text":
        raise InputError("--stability changes texts; leave it out for images, or compare runs with --against.")
    if windows and data.task != "text":
        raise InputError("--windows reads long texts; leave it out for images.")

    seen = Seen()
    with steps("evaluate") as step:
        for start in range(0, len(examples), PART):
            step(start, len(examples), "answering")
            part = examples.select(range(start, min(start + PART, len(examples))))
            if windows:
                _answer_in_windows(system, part, seen)
            else:
                _answer(system, part, seen, masks)

    report = _report(len(examples), seen)
    if faithful:
        report |= _faithfulness(system, examples)
    if stable or against:
        others = [open_system(other, data) for other in against]
        report["stability"] = stability(system, examples, others, changed=stable)

    return report


def _examples(spec: str, settings: DataSettings, split: str, limit: int | None) -> tuple[DataSource, Examples]:
    if limit is not None and split != "all":
        settings = replace(settings, train_limit=limit, eval_limit=limit, test_limit=limit)

    data = load_data(spec, settings)
    examples = data.split(split)
    if limit is not None:
        examples = examples.select(stratified_sample(examples.labels, limit, settings.split_seed))

    return data, examples


def _answer(system: System, examples: Examples, seen: Seen, masks: Masks) -> None:
    """Ask a system about a part of the examples, and keep what is measured."""
    rows = system.encode(examples.inputs)
    answers = system.answer(rows, masks)

    seen.scores.append(probabilities(answers.logits))
    seen.labels.append(examples.labels[answers.rows])
    seen.masks += answers.masks
    if answers.alone is not None:
        seen.alone.append(answers.alone.argmax(axis=1))

    if examples.rationale_spans is None or not isinstance(rows, TextRows) or len(answers.rows) != len(examples):
        return  # no one knows the true rationale, or it is a control's several random masks

    for row, (text, mask, margins, spans) in enumerate(
        zip(examples.inputs, answers.masks, answers.margins, examples.rationale_spans, strict=True)
    ):
        offsets = rows.offsets(row)
        seen.pieces.append((mask, _overlaps(offsets, spans)))
        seen.words.append(marked_words(str(text), offsets, mask, margins, spans))


def _answer_in_windows(system: RunSystem | BundleSystem, examples: Examples, seen: Seen) -> None:
    """The same of texts that are read whole: one answer a text, with its mask in words."""
    assert system.tokenizer is not None
    texts = [str(text) for text in examples.inputs]
    cut = [text_windows(system.tokenizer, text) for text in texts]
    rows = system.encode(
        [text[each.start : each.end] for text, parts in zip(texts, cut, strict=True) for each in parts]
    )
    assert isinstance(rows, TextRows)
    answers = system.answer(rows)
    scores = probabilities(answers.logits)
    spans = examples.rationale_spans or [[] for _ in texts]
    end = 0

    for text, parts, marked in zip(texts, cut, spans, strict=True):
        start, end = end, end + len(parts)
        seen.scores.append(scores[start:end].mean(axis=0, keepdims=True))
        words, of_windows = words_of(text), []

        for each, row in zip(parts, range(start, end), strict=True):
            offsets = [(a + each.start, b + each.start) for a, b in rows.offsets(row)]
            of_windows.append(
                in_words(words[each.first : each.last], offsets, answers.masks[row], answers.margins[row])
            )

        mask, values = merged(parts, [each[0] for each in of_windows], [each[1] for each in of_windows])
        seen.masks.append(mask[: len(words)])
        if examples.rationale_spans is not None:
            seen.words.append((mask[: len(words)], values[: len(words)], words_within(words, marked)))

    seen.labels.append(examples.labels)


def text_windows(tokenizer: Tokenizer, text: str) -> list[Window]:
    """The windows of a text; one of no words where it has none."""
    words = words_of(text)
    longest = allowed_tokens(tokenizer) - tokenizer.num_special_tokens_to_add(False)
    if not words:
        return [Window(0, 0, 0, 0)]

    pieces = np.array(
        [
            max(1, len(each.ids))
            for each in tokenizer.encode_batch([text[a:b] for a, b in words], add_special_tokens=False)
        ]
    )
    return windows_of(words, pieces, longest)


def _report(count: int, seen: Seen) -> dict[str, Any]:
    """The figures of everything that was seen."""
    scores, labels = np.concatenate(seen.scores), np.concatenate(seen.labels)
    report: dict[str, Any] = {
        "n": count,
        **classification_metrics(scores.argmax(axis=1), labels),
        "ece": expected_calibration_error(scores, labels),
        "brier": brier_score(scores, labels),
        "rationale_ratio": rationale_ratio(seen.masks),
        **rationale_shape(seen.masks),
    }

    if seen.alone:
        report["rationale_accuracy"] = float(np.mean(np.concatenate(seen.alone) == labels))
    if seen.pieces:
        report |= rationale_agreement(*zip(*seen.pieces, strict=True))
    if seen.words:
        report |= agreement_with_people(seen.words)

    return report


def marked_words(
    text: str, offsets: Sequence[Span], mask: Mask, margins: NDArray[np.floating], spans: Sequence[Span]
) -> MarkedWords:
    """Mask and scores of a text's pieces in whitespace words, and the spans of words that people marked."""
    words = words_of(text)
    return (*in_words(words, offsets, mask, margins), words_within(words, spans))


def agreement_with_people(documents: Sequence[MarkedWords]) -> dict[str, float]:
    """Token agreement, IoU-F1 and AUPRC in words, over documents."""
    masks, values, spans = zip(*documents, strict=True)
    truth = [mask_of(len(mask), marked) for mask, marked in zip(masks, spans, strict=True)]
    figures = {"iou_f1": iou_f1(masks, spans), "auprc": rationale_auprc(values, truth)}
    return {**token_agreement(masks, truth), **figures}


def _faithfulness(system: System, examples: Examples) -> dict[str, float]:
    """Sufficiency, comprehensiveness and flips, over parts of the examples."""
    sums: dict[str, float] = {}
    with steps("evaluate") as step:
        for start in range(0, len(examples), PART):
            step(start, len(examples), "taking rationales away")
            rows = system.encode(examples.select(range(start, min(start + PART, len(examples)))).inputs)
            answers = system.answer(rows)

            def classify(masks: Sequence[Mask], rows: Rows = rows) -> NDArray[np.float64]:
                return probabilities(system.classify(rows, masks))

            for name, value in faithfulness(classify, answers.masks, answers.margins).items():
                sums[name] = sums.get(name, 0.0) + value * len(rows) / len(examples)

    return sums


def _overlaps(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> Mask:
    """Which pieces overlap one of the spans."""
    return np.array([any(start < end and stop > begin for begin, end in spans) for start, stop in offsets], dtype=bool)

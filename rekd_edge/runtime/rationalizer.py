"""Open a bundle and predict: label, probability and rationale from one graph."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from rekd_edge.errors import FailureError, InputError
from rekd_edge.models import find_bundle
from rekd_edge.runtime.batching import batches_of_like_length, check_batch_size, image_batches, parts
from rekd_edge.runtime.border import at_border
from rekd_edge.runtime.bundle import LAYOUT, Manifest
from rekd_edge.runtime.graph import check_graph_file, check_io
from rekd_edge.runtime.image import image_pixels, load_image, normalise
from rekd_edge.runtime.prediction import (
    ClassRationale,
    ImagePrediction,
    Span,
    TextPrediction,
    conformal_of,
    merge_spans,
    possible_labels,
)
from rekd_edge.runtime.session import open_session
from rekd_edge.runtime.text import EncodedText, encode_texts, load_tokenizer, pad_ids

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    from rekd_edge.runtime.image import ImageSource
    from rekd_edge.runtime.signature import KeySource

    Prediction = TextPrediction | ImagePrediction

__all__ = ["PredictedRows", "Rationalizer"]

NEAR_TIE = 1e-5
"""The band of near ties where the manifest states none: what margins computed in float drift by."""
OUTPUTS = ("logits", "rationale_mask", "selection_margin")
SCORES = "rationale_scores"
"""What some methods' graphs give besides: a score a token and class."""


@dataclass(frozen=True)
class PredictedRows:
    """Predictions as arrays, one entry a row: `logits` float32 `[n, classes]`; `masks` (bool) and `margins`
    (float32) list the row's features only, `[features]` each, and so do `scores` (float32), `[features, classes]` each,
    of bundles that have them."""

    logits: NDArray[np.float32]
    masks: list[NDArray[np.bool_]]
    margins: list[NDArray[np.float32]]
    scores: list[NDArray[np.float32]] | None = None

    def followed_by(self, others: PredictedRows) -> PredictedRows:
        """These rows and then others of the same bundle."""
        return PredictedRows(
            np.concatenate([self.logits, others.logits]),
            self.masks + others.masks,
            self.margins + others.margins,
            None if self.scores is None or others.scores is None else self.scores + others.scores,
        )


class Rationalizer:
    """A bundle, open for prediction.

    >>> rationalizer = Rationalizer.load("bundle")
    >>> rationalizer("An absolute delight.").label
    'positive'
    """

    def __init__(self, manifest: Manifest, session: InferenceSession, tokenizer: Tokenizer | None) -> None:
        self.manifest = manifest
        self.session = session
        self.tokenizer = tokenizer
        self.outputs = wanted_outputs(manifest)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        verify: bool = True,
        trusted_keys: Sequence[KeySource] | None = None,
    ) -> Rationalizer:
        """Open a bundle.

        Args:
            path: its folder, the name of a model in the box, or `owner/name` or `owner/name@revision` on the Hub.
            threads: of ONNX Runtime, all physical cores by default.
            verify: check the SHA-256 of the files; their sizes and the manifest's seal are checked in any case.
            trusted_keys: public keys (PEM files, or their bytes); the bundle must be signed with one of them.

        Raises:
            InputError: the bundle is missing, incomplete, changed, too new, unreadable or not signed with a trusted
                key; or its graph is not what its manifest says, has control flow, or keeps weights in other files.
            FailureError: the system does not let it be opened.
        """
        with at_border(f"{path!s} could not be opened"):
            folder = find_bundle(path)
            manifest = Manifest.load(folder, verify=verify, trusted_keys=trusted_keys)
            tokenizer = load_tokenizer(folder / LAYOUT.tokenizer, manifest.text.max_length) if manifest.text else None
            graph = folder / LAYOUT.graph
            check_graph_file(graph)
            session = open_session(graph, threads)
            check_io(session, manifest, graph)

            return cls(manifest, session, tokenizer)

    @overload
    def __call__(self, inputs: str | ImageSource, *, batch_size: int = ...) -> Prediction: ...

    @overload
    def __call__(
        self, inputs: list[Any] | tuple[Any, ...], *, batch_size: int = ...
    ) -> list[TextPrediction] | list[ImagePrediction]: ...

    def __call__(
        self, inputs: Any, *, batch_size: int = 32
    ) -> Prediction | list[TextPrediction] | list[ImagePrediction]:
        """Predict one text or image, or a list of them (answered in the same order).

        An image is a path, the bytes of an image file, a PIL image or an array (see `load_image`). Long lists are done
        in parts, so that memory grows with the answers alone.

        Raises:
            InputError: an input is of the wrong kind or cannot be read.
            FailureError: the graph cannot be run, or returned numbers that are not finite.
        """
        many = isinstance(inputs, list | tuple)
        rows = inputs if many else [inputs]

        with at_border("The prediction failed"):
            check_batch_size(batch_size)
            if self.manifest.text:
                texts = [each for part in parts(rows) for each in self._answer_texts(rows[part], batch_size)[0]]
                return texts if many else texts[0]

            images = self._answer_images(rows, batch_size)[0]
            return images if many else images[0]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph on ready arrays: `logits`, `rationale_mask` and `selection_margin` as the graph has them, and
        `rationale_scores` where the manifest lists them.

        Raises:
            FailureError: the graph cannot be run on them.
        """
        with at_border("The graph could not be run"):
            return dict(zip(self.outputs, self.session.run(list(self.outputs), dict(inputs)), strict=True))

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Tokenise texts as the graph will see them.

        Raises:
            InputError: this is an image bundle, or one of the texts is no string.
        """
        if self.tokenizer is None:
            raise InputError("This bundle classifies images, not texts; give it images.")

        for text in texts:
            if not isinstance(text, str):
                raise InputError(f"A {type(text).__name__} is not a text; give a string or a list of strings.")

        with at_border("The texts could not be tokenised"):
            return encode_texts(self.tokenizer, texts)

    def prepare(self, inputs: Sequence[Any]) -> dict[str, NDArray[Any]]:
        """The graph's inputs for one batch of texts, padded to the longest, or of images.

        Raises:
            InputError: as for a call.
        """
        if self.manifest.text:
            return self._padded(self.encode(inputs))

        settings = self.manifest.image
        assert settings is not None

        with at_border("The images could not be prepared"):
            pixels = np.stack([image_pixels(load_image(source), settings) for source in inputs])
            return {"pixel_values": normalise(pixels, settings)}

    def check_longest(self) -> None:
        """Run a text of as many tokens as the manifest allows, which graphs of earlier versions don't state themselves.

        Raises:
            FailureError: the graph cannot read so many.
        """
        if self.manifest.text is not None:
            self("a " * self.manifest.text.max_length)

    def predict_rows(self, inputs: Sequence[Any], *, batch_size: int = 32) -> PredictedRows:
        """Predict texts or images into arrays, for measuring; images are opened one batch at a time.

        Raises:
            InputError, FailureError: as for a call.
        """
        with at_border("The prediction failed"):
            check_batch_size(batch_size)
            if self.manifest.text is None:
                return self._run_images(inputs, batch_size)

            rows = self._empty_rows(0)
            for part in parts(inputs):
                rows = rows.followed_by(self._run_texts(self.encode(inputs[part]), batch_size))

            return rows

    def predict_encoded(self, encoded: Sequence[EncodedText], *, batch_size: int = 32) -> PredictedRows:
        """Predict texts that `encode` gave, or changed ones of their kind, into arrays.

        Raises:
            FailureError: the graph cannot be run, or returned numbers that are not finite.
        """
        with at_border("The prediction failed"):
            check_batch_size(batch_size)
            return self._run_texts(encoded, batch_size)

    def answers(
        self, inputs: Sequence[Any], *, batch_size: int = 1
    ) -> Iterator[tuple[Prediction, NDArray[np.float32], NDArray[np.float32]]]:
        """Predictions with what they rest on: logits float32 `[classes]` and selection margins float32 `[features]`.

        Raises:
            InputError, FailureError: as for a call.
        """
        with at_border("The prediction failed"):
            check_batch_size(batch_size)
            for part in parts(inputs):
                answer = self._answer_texts if self.manifest.text else self._answer_images
                predictions, rows = answer(inputs[part], batch_size)
                yield from zip(predictions, rows.logits, rows.margins, strict=True)

    @property
    def near_tie_band(self) -> float:
        """Margins this near to 0 may fall on either side of it in another runtime, as the manifest states."""
        return float(self.manifest.fields.get("near_ties", {}).get("width", NEAR_TIE))

    def possible_labels(self, prediction: Prediction) -> list[str]:
        """The labels that may be right: the true one is among them as often as `coverage` says.

        One label is an answer; several, or none, mean "I don't know" (docs/records.md).

        Raises:
            InputError: the bundle states no coverage.
        """
        return possible_labels(prediction.scores, self.manifest.fields)

    @property
    def coverage(self) -> float:
        """How often the true label is among the possible ones, as the manifest states.

        Raises:
            InputError: it states none.
        """
        return float(conformal_of(self.manifest.fields)["coverage"])

    def _answer_texts(self, texts: Sequence[str], batch_size: int) -> tuple[list[TextPrediction], PredictedRows]:
        encoded = self.encode(texts)
        rows = self._run_texts(encoded, batch_size)
        scores: Sequence[NDArray[np.float32] | None] = rows.scores or [None] * len(encoded)
        predictions = [
            _text_prediction(text, row, mask, logits, values, self.manifest)
            for text, row, mask, logits, values in zip(texts, encoded, rows.masks, rows.logits, scores, strict=True)
        ]
        return predictions, rows

    def _answer_images(
        self, sources: Sequence[ImageSource], batch_size: int
    ) -> tuple[list[ImagePrediction], PredictedRows]:
        settings = self.manifest.image
        assert settings is not None
        rows = self._run_images(sources, batch_size)
        predictions = [
            ImagePrediction(
                **_decision(logits, self.manifest.labels),
                mask=mask.reshape(settings.grid).astype(int).tolist(),
                patch_size=settings.patch_size,
                rationale_ratio=_ratio(mask),
            )
            for mask, logits in zip(rows.masks, rows.logits, strict=True)
        ]
        return predictions, rows

    def _run_texts(self, encoded: Sequence[EncodedText], batch_size: int) -> PredictedRows:
        rows = self._empty_rows(len(encoded))
        for batch in batches_of_like_length([len(row.ids) for row in encoded], batch_size):
            outputs = self._run_checked(self._padded([encoded[index] for index in batch]))
            for row, index in enumerate(batch):
                feature = np.array(encoded[index].feature, dtype=bool)
                rows.logits[index] = outputs["logits"][row]
                rows.masks[index] = outputs["rationale_mask"][row, : feature.size][feature]

                rows.margins[index] = outputs["selection_margin"][row, : feature.size][feature]
                if rows.scores is not None:
                    rows.scores[index] = outputs[SCORES][row, : feature.size][feature]

        return rows

    def _run_images(self, sources: Sequence[ImageSource], batch_size: int) -> PredictedRows:
        settings = self.manifest.image
        assert settings is not None
        rows = self._empty_rows(len(sources))

        for batch in image_batches(len(sources), batch_size, settings.height, settings.width):
            outputs = self._run_checked(self.prepare([sources[index] for index in batch]))
            for row, index in enumerate(batch):
                rows.logits[index] = outputs["logits"][row]
                rows.masks[index] = outputs["rationale_mask"][row]
                rows.margins[index] = outputs["selection_margin"][row]

        return rows

    def _padded(self, encoded: Sequence[EncodedText]) -> dict[str, NDArray[Any]]:
        assert self.manifest.text is not None
        ids, attention = pad_ids([row.ids for row in encoded], self.manifest.text.pad_token_id)
        return {"input_ids": ids, "attention_mask": attention}

    def _empty_rows(self, count: int) -> PredictedRows:
        classes = len(self.manifest.labels)
        return PredictedRows(
            np.zeros((count, classes), np.float32),
            [np.zeros(0, bool) for _ in range(count)],
            [np.zeros(0, np.float32) for _ in range(count)],
            [np.zeros((0, classes), np.float32) for _ in range(count)] if SCORES in self.outputs else None,
        )

    def _run_checked(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = self.run(inputs)
        if not (np.isfinite(outputs["logits"]).all() and np.isfinite(outputs["selection_margin"]).all()):
            raise FailureError("The model returned numbers that are not finite; train or export it again.")

        rows, classes = len(next(iter(inputs.values()))), len(self.manifest.labels)
        features = math.prod(self.manifest.image.grid) if self.manifest.image else inputs["input_ids"].shape[1]
        shapes = {"logits": (rows, classes), SCORES: (rows, features, classes)}

        for name, values in outputs.items():
            if values.shape != (wanted := shapes.get(name, (rows, features))):
                raise FailureError(f"The model returned {name} of shape {values.shape}, not {wanted}; export it again.")

        return outputs


def wanted_outputs(manifest: Manifest) -> tuple[str, ...]:
    """The contract's outputs, and the scores where the manifest lists them."""
    return (*OUTPUTS, SCORES) if manifest.class_thresholds else OUTPUTS


def _text_prediction(
    text: str,
    encoded: EncodedText,
    mask: NDArray[np.bool_],
    logits: NDArray[np.float32],
    scores: NDArray[np.float32] | None,
    manifest: Manifest,
) -> TextPrediction:
    offsets = [offset for offset, feature in zip(encoded.offsets, encoded.feature, strict=True) if feature]
    decision = _decision(logits, manifest.labels)
    rationale = _spans(text, offsets, mask)
    by_class = None

    if scores is not None:
        by_class = {
            label: ClassRationale(
                rationale=rationale
                if label == decision["label"]
                else _spans(text, offsets, class_mask(values, threshold)),
                scores=values.tolist(),
            )
            for label, values, threshold in zip(manifest.labels, scores.T, manifest.class_thresholds, strict=True)
        }

    return TextPrediction(
        **decision,
        rationale=rationale,
        mask=mask.astype(int).tolist(),
        tokens=[sys.intern(token) for token, feature in zip(encoded.tokens, encoded.feature, strict=True) if feature],
        rationale_ratio=_ratio(mask),
        truncated=encoded.truncated,
        class_rationales=by_class,
    )


def class_mask(scores: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """The tokens of a class that is not the label: scores `[features]` above its threshold, or the first of the best
    (with those beside it that have the very same, as the pieces of a word may)."""
    mask = scores.astype(np.float64) > threshold
    if scores.size and not mask.any():
        best = scores == scores.max()
        first = int(best.argmax())
        others = np.flatnonzero(~best[first:])
        mask[first : first + int(others[0]) if others.size else scores.size] = True

    return mask


def _spans(text: str, offsets: Sequence[tuple[int, int]], mask: NDArray[np.bool_]) -> list[Span]:
    return [Span(start=start, end=end, text=text[start:end]) for start, end in merge_spans(offsets, mask.tolist())]


def _decision(logits: NDArray[np.float32], labels: Sequence[str]) -> dict[str, Any]:
    """Label, label id and softmax scores of one row of logits `[classes]`."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    scores = exponentials / exponentials.sum()
    best = int(logits.argmax())
    return {"label": labels[best], "label_id": best, "scores": dict(zip(labels, scores.tolist(), strict=True))}


def _ratio(mask: NDArray[np.bool_]) -> float:
    """|M| / L, 0 where there is no feature."""
    return float(mask.mean()) if mask.size else 0.0

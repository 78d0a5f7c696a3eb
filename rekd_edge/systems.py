"""A run (torch) or a bundle (ONNX Runtime), asked the same: what it answers, and what it decides from a given part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rekd_edge.errors import InputError
from rekd_edge.methods import method_of
from rekd_edge.models import find_bundle
from rekd_edge.runtime.image import image_pixels, load_image, normalise
from rekd_edge.runtime.text import EncodedText, encode_texts, pad_ids

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    from rekd_edge.data import DataSource
    from rekd_edge.training.inference import Masks

__all__ = ["Answers", "BundleSystem", "ImageRows", "Rows", "RunSystem", "System", "TextRows", "open_system"]

BATCH = 64
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class TextRows:
    """Tokenised texts, as a system reads them."""

    encoded: list[EncodedText]
    blank_id: int
    """A token without content: [UNK], or the padding."""

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def lengths(self) -> list[int]:
        """Features of each text."""
        return [sum(row.feature) for row in self.encoded]

    def tokens(self, row: int) -> list[str]:
        """The features of a text."""
        encoded = self.encoded[row]
        return [token for token, feature in zip(encoded.tokens, encoded.feature, strict=True) if feature]

    def feature_ids(self, row: int) -> NDArray[np.int64]:
        """Token ids of a text's features."""
        return np.array(self.encoded[row].ids, dtype=np.int64)[np.array(self.encoded[row].feature, dtype=bool)]

    def offsets(self, row: int) -> list[tuple[int, int]]:
        """(start, end) in characters of a text's features."""
        encoded = self.encoded[row]
        return [offset for offset, feature in zip(encoded.offsets, encoded.feature, strict=True) if feature]

    def blanked(self, masks: Sequence[Mask]) -> TextRows:
        """The same rows, with the features in the masks `[features]` turned into a token without content."""
        return self._with_ids([np.where(mask, self.blank_id, self.feature_ids(i)) for i, mask in enumerate(masks)])

    def scrambled(self, masks: Sequence[Mask], rng: np.random.Generator) -> TextRows:
        """The same rows, with the features in the masks replaced by tokens drawn from all rows."""
        pool = np.concatenate([self.feature_ids(i) for i in range(len(self))])
        return self._with_ids(
            [np.where(mask, rng.choice(pool, len(mask)), self.feature_ids(i)) for i, mask in enumerate(masks)]
        )

    def _with_ids(self, values: list[NDArray[np.int64]]) -> TextRows:
        rows = []
        for row, ids in zip(self.encoded, values, strict=True):
            changed = np.array(row.ids, dtype=np.int64)
            changed[np.array(row.feature, dtype=bool)] = ids
            rows.append(replace(row, ids=changed.tolist()))

        return replace(self, encoded=rows)


@dataclass(frozen=True)
class ImageRows:
    """Images of the model's size, uint8 `[n, H, W, 3]`, and the grid of patches that are their features."""

    pixels: NDArray[np.uint8]
    grid: tuple[int, int]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def lengths(self) -> list[int]:
        """Features of each image."""
        return [self.grid[0] * self.grid[1]] * len(self)

    def blanked(self, masks: Sequence[Mask]) -> ImageRows:
        """The same rows, with the patches in the masks `[features]` turned grey."""
        return self._with_pixels(masks, np.full_like(self.pixels, 128))

    def scrambled(self, masks: Sequence[Mask], rng: np.random.Generator) -> ImageRows:
        """The same rows, with the patches in the masks replaced by those of other images."""
        return self._with_pixels(masks, self.pixels[rng.permutation(len(self))])

    def _with_pixels(self, masks: Sequence[Mask], others: NDArray[np.uint8]) -> ImageRows:
        rows, columns = self.grid
        side = self.pixels.shape[1] // rows, self.pixels.shape[2] // columns
        where = np.stack([np.kron(mask.reshape(self.grid), np.ones(side, dtype=bool)) for mask in masks])
        inside = np.zeros(self.pixels.shape[:3], dtype=bool)
        inside[:, : where.shape[1], : where.shape[2]] = where
        return replace(self, pixels=np.where(inside[..., None], others, self.pixels))


Rows = TextRows | ImageRows


@dataclass(frozen=True)
class Answers:
    """What a system says of rows: logits `[n, classes]`, masks (bool) and margins (float32) `[features]` each."""

    logits: NDArray[np.float32]
    masks: list[Mask]
    margins: list[NDArray[np.float32]]
    rows: NDArray[np.int64]
    """Which row each answer is about: a control answers several times, with other random masks."""
    alone: NDArray[np.float32] | None = None
    """Logits from the rationales alone, of a system that decides from more than that."""


class System(Protocol):
    """Something that selects and decides."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    @property
    def task(self) -> str:
        """`text` or `image`."""
        ...

    @property
    def labels(self) -> list[str]:
        """Its labels, by label id."""
        ...

    @property
    def whole_input(self) -> bool:
        """Whether it decides from more than its rationale."""
        ...

    def encode(self, inputs: Iterable[Any]) -> Rows:
        """Texts or images as it reads them."""
        ...

    def answer(self, rows: Rows, masks: Masks = "deterministic") -> Answers:
        """What it says of them."""
        ...

    def classify(self, rows: Rows, masks: Sequence[Mask]) -> NDArray[np.float32]:
        """Logits `[n, classes]` from the features in the masks alone."""
        ...


class RunSystem:
    """A finished run."""

    def __init__(self, path: Path) -> None:
        import torch

        from rekd_edge.modeling import RationaleModel
        from rekd_edge.training.preparation import preprocessing_of_run

        self.name = str(path)
        self.model = RationaleModel.from_pretrained(path).to("cuda" if torch.cuda.is_available() else "cpu")
        self.config = self.model.config
        self.task, self.labels = self.config.task, self.config.labels
        self.method = self.config.method
        self.whole_input = method_of(self.method).whole_input
        self.preprocessing = preprocessing_of_run(path, self.config)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What reads its texts."""
        return self.preprocessing.tokenizer

    def encode(self, inputs: Iterable[Any]) -> Rows:
        """Texts or images as the run reads them."""
        if self.tokenizer is not None:
            return _text_rows(self.tokenizer, inputs, self.config.pad_token_id)

        settings = self.preprocessing.image
        assert settings is not None
        pixels = np.stack([image_pixels(load_image(image), settings) for image in inputs])
        patch = self.model.patch_size
        return ImageRows(pixels, (pixels.shape[1] // patch, pixels.shape[2] // patch))

    def answer(self, rows: Rows, masks: Masks = "deterministic") -> Answers:
        """What the run says of rows, with the masks of the device or those that training draws.

        Raises:
            InputError: its method samples no masks.
        """
        from rekd_edge.training.configuration import unused_by
        from rekd_edge.training.inference import predict

        if masks == "sampled" and "dev_masks" in unused_by(self.config.method):
            raise InputError(f"{self.config.method} samples no masks when it is evaluated; leave --masks out.")

        found = predict(self.model, list(self._batches(rows)), masks=masks)
        return Answers(found.logits, found.masks, found.margins, found.labels, found.rationale_logits)

    def classify(self, rows: Rows, masks: Sequence[Mask]) -> NDArray[np.float32]:
        """Logits `[n, classes]` of the predictor from the features in the masks alone."""
        import torch

        device, logits, start = next(self.model.parameters()).device, [], 0
        with torch.no_grad():
            for batch in self._batches(rows):
                attention = batch.get("attention_mask")
                inputs = batch["pixel_values"] if attention is None else batch["input_ids"]
                inputs, attention = inputs.to(device), None if attention is None else attention.to(device)

                feature, _ = self.model.feature_positions(inputs, attention)
                mask = torch.zeros(feature.shape, dtype=torch.bool)
                for row in range(len(inputs)):
                    mask[row, feature[row].cpu()] = torch.from_numpy(masks[start + row])

                logits.append(self._decide(inputs, attention, mask.to(device)).float().cpu().numpy())
                start += len(inputs)

        return np.concatenate(logits)

    def _decide(self, inputs: Any, attention: Any, mask: Any) -> Any:
        """The method's decision from the rationale alone, where that is not its ordinary one."""
        alone = self.model.rationale_logits(inputs, attention, mask)
        return (
            self.model.classify(inputs, attention, mask, self.model.select(inputs, attention))
            if alone is None
            else alone
        )

    def _batches(self, rows: Rows) -> Any:
        import torch

        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            if isinstance(rows, TextRows):
                ids, attention = pad_ids([row.ids for row in rows.encoded[part]], self.config.pad_token_id)
                batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(attention)}
            else:
                settings = self.preprocessing.image
                assert settings is not None
                batch = {"pixel_values": torch.from_numpy(normalise(rows.pixels[part], settings))}

            yield batch | {
                "labels": torch.arange(start, min(start + BATCH, len(rows)))
            }  # the row in place of its label


class BundleSystem:
    """A bundle; the part of its graph that decides is cut out when it is first asked for."""

    def __init__(self, path: Path) -> None:
        from rekd_edge.runtime import Rationalizer

        self.name, self.path = str(path), path
        self.rationalizer = Rationalizer.load(path)
        manifest = self.rationalizer.manifest
        self.task, self.labels = "image" if manifest.text is None else "text", list(manifest.labels)
        self.method = manifest.fields["method"]
        self.whole_input = method_of(self.method).whole_input

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What reads its texts."""
        return self.rationalizer.tokenizer

    def encode(self, inputs: Iterable[Any]) -> Rows:
        """Texts or images as the bundle reads them."""
        manifest = self.rationalizer.manifest
        if self.tokenizer is not None:
            assert manifest.text is not None
            return _text_rows(self.tokenizer, inputs, manifest.text.pad_token_id)

        assert manifest.image is not None
        pixels = np.stack([image_pixels(load_image(image), manifest.image) for image in inputs])
        return ImageRows(pixels, manifest.image.grid)

    def answer(self, rows: Rows, masks: Masks = "deterministic") -> Answers:
        """What the bundle says of rows; its masks are deterministic."""
        if isinstance(rows, TextRows):
            found = self.rationalizer.predict_encoded(rows.encoded)
        else:
            found = self.rationalizer.predict_rows(list(rows.pixels))

        alone = None if found.scores is None else self.classify(rows, found.masks)
        return Answers(found.logits, found.masks, found.margins, np.arange(len(rows)), alone)

    def classify(self, rows: Rows, masks: Sequence[Mask]) -> NDArray[np.float32]:
        """Logits `[n, classes]` of the predictor's part of the graph from the features in the masks alone.

        A method that decides from the whole input is asked about a text whose other tokens are padding.
        """
        if self.whole_input:
            if isinstance(rows, ImageRows):
                return self.answer(rows.blanked([~mask for mask in masks])).logits
            padding = replace(rows, blank_id=self._padding).blanked([~mask for mask in masks])
            return self.rationalizer.predict_encoded(padding.encoded).logits

        logits = []
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            shown = masks[part]

            if isinstance(rows, TextRows):
                encoded = rows.encoded[part]
                ids, attention = pad_ids([row.ids for row in encoded], self._padding)
                mask = np.zeros(ids.shape, dtype=bool)
                for row, (text, kept) in enumerate(zip(encoded, shown, strict=True)):
                    mask[row, np.flatnonzero(text.feature)] = kept
                feeds = {"input_ids": ids, "attention_mask": attention, "rationale_mask": mask}
            else:
                pixels = self.rationalizer.prepare(list(rows.pixels[part]))
                feeds = {**pixels, "rationale_mask": np.stack(shown)}

            wanted = {value.name for value in self._predictor.get_inputs()}
            feeds = {name: value for name, value in feeds.items() if name in wanted}
            logits.append(self._predictor.run(["logits"], feeds)[0])

        return np.concatenate(logits)

    @property
    def _padding(self) -> int:
        text = self.rationalizer.manifest.text
        assert text is not None
        return text.pad_token_id

    @cached_property
    def _predictor(self) -> InferenceSession:
        from rekd_edge.export.replay import open_predictor

        return open_predictor(self.path)


def open_system(path: Path, data: DataSource | None = None) -> RunSystem | BundleSystem:
    """Open a run or a bundle; a bundle also by what `find_bundle` takes.

    Raises:
        InputError: it is neither, or reads data of another kind or with other labels.
    """
    path = find_bundle(path)
    is_bundle = (path / "manifest.json").is_file()
    if not is_bundle and not (path / "config.json").is_file():
        raise InputError(f"{path} is neither a run nor a bundle; give a folder that train or export wrote.")

    system = BundleSystem(path) if is_bundle else RunSystem(path)
    if data is not None:
        check_fits(system, data)

    return system


def check_fits(system: System, data: DataSource) -> None:
    """Hold a system's task and labels against the data's; upper and lower case are the same.

    Raises:
        InputError: they differ.
    """
    if system.task != data.task:
        raise InputError(f"{system.name} reads {system.task}, the data is {data.task}; choose data of its kind.")

    ours, theirs = system.labels, list(data.label_names)
    if [label.casefold() for label in ours] != [label.casefold() for label in theirs]:
        raise InputError(
            f"{system.name} knows {len(ours)} labels ({', '.join(ours[:3])}, …), the data has {len(theirs)} "
            f"({', '.join(theirs[:3])}, …); evaluate on data with the same labels."
        )


def _text_rows(tokenizer: Tokenizer, texts: Iterable[str], padding: int | None) -> TextRows:
    unknown = next((found for token in ("[UNK]", "<unk>") if (found := tokenizer.token_to_id(token)) is not None), None)
    return TextRows(encode_texts(tokenizer, list(texts)), padding or 0 if unknown is None else unknown)

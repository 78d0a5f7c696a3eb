"""Examples to model inputs: map-style torch data sets, and the collators that put their items into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageOps
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from rekd_edge.data.examples import EncodedImages, Examples
from rekd_edge.runtime.image import ImageSettings, image_pixels, normalise
from rekd_edge.runtime.text import encode_texts, pad_ids

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageCollator", "ImageFeatures", "Targets", "TextCollator", "TextFeatures", "augmented"]

Targets = Mapping[str, Sequence[NDArray[Any]]]
"""Arrays for each example under the names they get in a batch, such as a teacher's logits."""

PER_TOKEN_TARGETS = ("teacher_selection_logits", "teacher_mask")
"""Targets with one row a token, which a batch of texts pads; all others have one shape for all examples."""

ENCODE_AT_ONCE = 1000
PIXEL_CACHE_BYTES = 2**30
CROP_PADDING = 4


class TextFeatures(Dataset[dict[str, Any]]):
    """Texts, tokenised once. Items: `input_ids`, `labels`, `index` and the targets.

    Attributes:
        input_ids: int32 `[tokens]` of each example, special tokens included.
        features: bool `[tokens]` of each example, false for the tokenizer's own special tokens.
        offsets: int32 `[tokens, 2]` of each example, (start, end) in characters of the text.
        targets: may be set later, as a teacher needs the features before it can give them.
    """

    def __init__(self, examples: Examples, tokenizer: Tokenizer, targets: Targets | None = None) -> None:
        self.examples = examples
        self.targets: Targets = targets or {}
        self.input_ids: list[NDArray[np.int32]] = []
        self.features: list[NDArray[np.bool_]] = []
        self.offsets: list[NDArray[np.int32]] = []

        texts = cast("list[str]", examples.inputs)
        # Arrays, and in parts: as Python objects, the offsets of a corpus alone take gigabytes.
        for start in range(0, len(texts), ENCODE_AT_ONCE):
            for encoded in encode_texts(tokenizer, texts[start : start + ENCODE_AT_ONCE]):
                self.input_ids.append(np.array(encoded.ids, dtype=np.int32))
                self.features.append(np.array(encoded.feature, dtype=bool))
                self.offsets.append(np.array(encoded.offsets, dtype=np.int32).reshape(-1, 2))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, special tokens included."""
        return np.array([len(ids) for ids in self.input_ids], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "input_ids": self.input_ids[index].tolist(),
            "labels": int(self.examples.labels[index]),
            "index": index,
            **{name: values[index] for name, values in self.targets.items()},
        }


class TextCollator:
    """Pads a batch of `TextFeatures` items to its longest, or to `length`.

    Gives int64 `input_ids` and `attention_mask` `[batch, sequence]`, `labels` and `index` `[batch]`, per-token targets
    `[batch, sequence, ...]` padded with zeros, and other targets `[batch, ...]`.
    """

    def __init__(self, pad_id: int, length: int | None = None) -> None:
        self.pad_id = pad_id
        self.length = length

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        rows = [item["input_ids"] for item in items]
        input_ids, attention_mask = pad_ids(rows, self.pad_id)

        if self.length is not None:
            missing = ((0, 0), (0, self.length - input_ids.shape[1]))
            input_ids = np.pad(input_ids, missing, constant_values=self.pad_id)
            attention_mask = np.pad(attention_mask, missing)

        batch = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention_mask)}
        for name in items[0].keys() - {"input_ids"}:
            values = [item[name] for item in items]
            if name in PER_TOKEN_TARGETS:
                values = [_padded(value, input_ids.shape[1]) for value in values]
            batch[name] = _stacked(values)

        return batch


class ImageFeatures(Dataset[dict[str, Any]]):
    """Images as `pixel_values` float32 `[3, H, W]`, with `labels`, `index` and the targets.

    Resized pixels are kept as uint8 where the whole split fits into `PIXEL_CACHE_BYTES`.

    With augmentation, images of one size that fit are kept at that size, and items hold them as they are: `images`,
    uint8 `[3, h, w]`, which `training.augmentation` turns into pixel values batch by batch. Others are decoded, cropped
    and resized one by one, each time anew.
    """

    def __init__(
        self, examples: Examples, settings: ImageSettings, augment: bool = False, targets: Targets | None = None
    ) -> None:
        self.examples = examples
        self.images = cast(EncodedImages, examples.inputs)
        self.settings = settings
        self.augment = augment
        self.targets: Targets = targets or {}
        self.native = _of_one_size(self.images) if augment and settings.resample in (2, 3) else None
        """uint8 `[examples, 3, h, w]` where augmentation is left to the trainer."""
        self._cached: NDArray[np.uint8] | None = None  # [examples, H, W, 3]
        shape = len(examples), settings.height, settings.width, 3
        if not augment and int(np.prod(shape, dtype=np.int64)) <= PIXEL_CACHE_BYTES:
            self._cached = np.empty(shape, dtype=np.uint8)
            for i, image in enumerate(self.images):
                self._cached[i] = image_pixels(image, settings)

    @property
    def augments_alone(self) -> bool:
        """Whether crops are drawn here, image by image."""
        return self.augment and self.native is None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """A whole batch at once, as torch's loaders ask for it: one normalisation for all."""
        values: NDArray[Any]
        if self.native is not None:
            name, values = "images", self.native[indices]  # [batch, 3, h, w]
        else:
            name, values = "pixel_values", normalise(self._pixels(indices), self.settings)  # [batch, 3, H, W]

        return [
            {
                name: pixels,
                "labels": int(self.examples.labels[index]),
                "index": index,
                **{target: said[index] for target, said in self.targets.items()},
            }
            for index, pixels in zip(indices, values, strict=True)
        ]

    def _pixels(self, indices: list[int]) -> NDArray[np.uint8]:
        """uint8 [batch, H, W, 3]."""
        if self._cached is not None:
            return self._cached[indices]
        images = [self.images[index] for index in indices]
        if self.augment:
            images = [augmented(image) for image in images]
        return np.stack([image_pixels(image, self.settings) for image in images])


class ImageCollator:
    """Stacks `ImageFeatures` items: `pixel_values` `[batch, 3, H, W]` or `images` `[batch, 3, h, w]`, `labels` and
    `index` int64, the targets."""

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        return {name: _stacked([item[name] for item in items]) for name in items[0]}


def augmented(image: Image) -> Image:
    """The paper's training augmentation on CIFAR, at the image's own size: a black border of 4 pixels, a random crop
    back to the size, and a horizontal flip half of the time; drawn from torch's global generator.
    """
    left, top = torch.randint(0, 2 * CROP_PADDING + 1, (2,)).tolist()
    flip = torch.randint(0, 2, (1,)).item()
    width, height = image.size
    cropped = ImageOps.expand(image, CROP_PADDING).crop((left, top, left + width, top + height))
    return ImageOps.mirror(cropped) if flip else cropped


def _of_one_size(images: EncodedImages) -> NDArray[np.uint8] | None:
    """uint8 `[examples, 3, h, w]`; None where sizes differ or they do not fit into `PIXEL_CACHE_BYTES`."""
    native: NDArray[np.uint8] | None = None
    for i, image in enumerate(images):
        pixels = np.asarray(image).transpose(2, 0, 1)
        if native is None:
            if pixels.size * len(images) > PIXEL_CACHE_BYTES:
                return None
            native = np.empty((len(images), *pixels.shape), dtype=np.uint8)

        if pixels.shape != native.shape[1:]:
            return None

        native[i] = pixels

    return native


def _padded(values: NDArray[Any], length: int) -> NDArray[Any]:
    """[tokens, ...] to [length, ...], with zeros."""
    return np.pad(values, [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1))


def _stacked(values: list[Any]) -> Tensor:
    """Equal arrays or integers to one tensor; integers become int64."""
    return torch.from_numpy(np.stack(values))

"""The parts of a data set: raw inputs with label ids, split by split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rekd_edge.errors import InputError
from rekd_edge.runtime.image import load_image

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

__all__ = ["SPLIT_NAMES", "DataSource", "EncodedImages", "Examples"]

SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "valid": "validation",
    "test": "test",
}
"""Every name that a split may be given under, to the name it has here."""

READ_AT_ONCE = 1000


@dataclass(frozen=True)
class EncodedImages:
    """A sequence of images that are kept as files or file contents and decoded when they are used."""

    table: Dataset
    column: str
    """A column of `datasets.Image(decode=False)`: `{"bytes", "path"}`, either may be None."""

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Image:
        return self._open(self.table[int(index)][self.column], int(index))

    def __iter__(self) -> Iterator[Image]:
        cells = (cell for batch in self.table.iter(READ_AT_ONCE) for cell in batch[self.column])
        for index, cell in enumerate(cells):
            yield self._open(cell, index)

    def _open(self, cell: dict[str, Any], index: int) -> Image:
        """Decode an image.

        Raises:
            InputError: it cannot be read; the sentence names its file, or its row.
        """
        if cell["bytes"] is None:
            return load_image(cell["path"])

        try:
            return load_image(cell["bytes"])
        except InputError as error:
            chosen = self.table._indices  # rows of the table that a selection is of
            row = index if chosen is None else chosen.column(0)[index].as_py()
            name = f" ({cell['path']})" if cell["path"] else ""
            raise InputError(f"Row {row + 1} of the images{name}: {error}") from error

    def contents(self) -> Iterator[bytes]:
        """The undecoded content of every image file.

        Raises:
            InputError: a file can't be read.
        """
        for batch in self.table.iter(READ_AT_ONCE):
            for cell in batch[self.column]:
                yield _read(cell["path"]) if cell["bytes"] is None else cell["bytes"]

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> EncodedImages:
        """The images at `indices`, still encoded."""
        return EncodedImages(self.table.select(indices), self.column)

    def joined(self, others: Sequence[EncodedImages]) -> EncodedImages:
        """These images and those of others, still encoded."""
        from datasets import concatenate_datasets

        return EncodedImages(concatenate_datasets([self.table, *(other.table for other in others)]), self.column)


@dataclass(frozen=True)
class Examples:
    """One split: inputs, label ids int64 `[examples]` and, where they are known, the true rationales.

    `rationale_spans` holds (start, end) in characters of the text for every word of an example's true rationale.
    """

    inputs: list[str] | EncodedImages
    labels: NDArray[np.int64]
    rationale_spans: list[list[tuple[int, int]]] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Examples:
        """The examples at `indices`, in that order."""
        inputs, spans = self.inputs, self.rationale_spans
        return Examples(
            [inputs[i] for i in indices] if isinstance(inputs, list) else inputs.select(indices),
            self.labels[np.asarray(indices, dtype=np.int64)],
            None if spans is None else [spans[i] for i in indices],
        )

    def joined(self, others: Sequence[Examples]) -> Examples:
        """These examples and those of others."""
        inputs, spans = self.inputs, self.rationale_spans
        if isinstance(inputs, list):
            inputs = [*inputs, *(str(text) for other in others for text in other.inputs)]
        else:
            inputs = inputs.joined([other.inputs for other in others])  # type: ignore[misc]

        if spans is not None:
            spans = [*spans, *(each for other in others for each in other.rationale_spans or [])]

        return Examples(inputs, np.concatenate([self.labels, *(other.labels for other in others)]), spans)


@dataclass(frozen=True)
class DataSource:
    """A data set as it is used: after the validation split was made and the limits were applied."""

    task: Literal["text", "image"]
    label_names: list[str]
    splits: dict[str, Examples]
    made: dict[str, float] = field(default_factory=dict)
    """The share of each split that was set aside by itself, as training and validation splits of a single file are."""

    def split(self, name: str) -> Examples:
        """One split; `val`, `dev` and `valid` mean `validation`, `all` is every split one after the other.

        Raises:
            InputError: the data has no such split.
        """
        if name == "all":
            first, *others = self.splits.values()
            return first.joined(others) if others else first

        split = self.splits.get(SPLIT_NAMES.get(name, name))
        if split is None:
            raise InputError(f"The data has no {name} split; choose from: {', '.join(self.splits)}, all.")

        return split

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of label names, inputs and labels of every split; images count as they are stored."""
        digest = hashlib.sha256(json.dumps([self.task, self.label_names]).encode())
        for name in sorted(self.splits):
            examples = self.splits[name]
            digest.update(json.dumps([name, len(examples)]).encode())
            digest.update(examples.labels.astype("<i8").tobytes())

            for content in _contents(examples.inputs):
                digest.update(len(content).to_bytes(8, "little"))
                digest.update(content)

        return digest.hexdigest()


def _contents(inputs: list[str] | EncodedImages) -> Iterator[bytes]:
    if isinstance(inputs, list):
        return (text.encode("utf-8", "surrogatepass") for text in inputs)
    return inputs.contents()


def _read(path: Any) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"The image {path} cannot be read ({error.strerror}); correct the data.") from error

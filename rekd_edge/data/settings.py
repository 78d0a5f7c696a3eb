"""What of a data set is read, and how: the `data.` settings of a recipe and of `--set`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from rekd_edge.errors import InputError
from rekd_edge.settings import LATER, Section, Seed

__all__ = ["DataSettings"]

Column = Annotated[str, Field(min_length=1, max_length=1024)]
Limit = Annotated[int, Field(ge=1, le=2**32 - 1)]


@dataclass(frozen=True)
class DataSettings(Section):
    """Settings of every verb that takes `--data`.

    Raises:
        InputError: a value is of the wrong kind or out of range.
    """

    section = "data"
    _of_texts: ClassVar[frozenset[str]] = frozenset(("text_column", "max_length"))
    _of_images: ClassVar[frozenset[str]] = frozenset(("image_column", "image_size", "augment"))
    _of_training: ClassVar[frozenset[str]] = frozenset(("max_length", "image_size", "augment"))

    text_column: Column | None = None
    """Column of the texts; found by convention if not given."""
    label_column: Column | None = None
    """Column of the labels; found by convention if not given."""
    image_column: Column | None = None
    """Column of the images; found by convention if not given."""
    max_length: Annotated[int, Field(ge=3, le=65_536)] = 256
    """Longest text in tokens, special tokens included."""
    image_size: Annotated[int, Field(ge=1, le=2048)] | None = None
    """Height and width in pixels that images are resized to; the backbone's own if not given."""
    fine_labels: bool = False
    """Read `fine_label` (CIFAR-100's 100 classes) instead of `coarse_label` (20)."""
    augment: bool = False
    """Train on random crops (padding 4) and flips of the images, as the paper does on CIFAR."""
    train_limit: Limit | None = None
    """Train on at most so many examples, as balanced as the data."""
    eval_limit: Limit | None = None
    """Evaluate on at most so many examples of every other split, as balanced as the data."""
    test_limit: Limit | None = None
    """The same of the test split alone; `eval_limit` if not given."""
    test_share: Annotated[float, Field(gt=0, lt=1), LATER] = 0.2
    """Share of a single file that becomes the test split."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training split that becomes the validation split where the data has none."""
    conformal_share: Annotated[float, Field(ge=0, lt=1), LATER] = 0.0
    """Share of the validation split that is set apart as the split `conformal`. Nothing is trained, chosen or
    calibrated on it, so export can promise a coverage from it."""
    split_seed: Seed = 2026
    """Seed of these splits, of the limits and of the built-in data; not the seed of training."""

    def __post_init__(self) -> None:
        if self.text_column and self.image_column:
            raise InputError("data.text_column and data.image_column exclude each other; give one of them.")
        if self.fine_labels and self.label_column:
            raise InputError("data.fine_labels and data.label_column exclude each other; give one of them.")

    @classmethod
    def task_of(cls, name: str) -> str | None:
        """The kind of data that a setting is for, `text` or `image`; None where it is for both."""
        if name in cls._of_texts:
            return "text"
        return "image" if name in cls._of_images else None

    @classmethod
    def given(cls, overrides: dict[str, Any]) -> DataSettings:
        """Settings of a verb that reads data and trains nothing, from `data.…` keys.

        Raises:
            InputError: a key is unknown, or has no effect outside of training.
        """
        fields = {key.removeprefix("data."): value for key, value in overrides.items()}
        if idle := next((name for name in fields if name in cls._of_training), None):
            raise InputError(f"data.{idle} belongs to the run, which keeps what it was trained with; leave it out.")
        return cls(**fields)

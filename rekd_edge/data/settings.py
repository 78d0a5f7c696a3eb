"""What of a data set is read, and how: the `data.` settings of a recipe and of `--set`."""

from __future__ import annotations

from dataclasses import dataclass

from rekd_edge.errors import InputError

__all__ = ["DataSettings"]


@dataclass(frozen=True)
class DataSettings:
    """Settings of every verb that takes `--data`.

    Raises:
        InputError: a value is of the wrong kind or out of range.
    """

    text_column: str | None = None
    """Column of the texts; found by convention if not given."""
    label_column: str | None = None
    """Column of the labels; found by convention if not given."""
    image_column: str | None = None
    """Column of the images; found by convention if not given."""
    max_length: int = 256
    """Longest text in tokens, special tokens included."""
    image_size: int | None = None
    """Height and width in pixels that images are resized to; the backbone's own if not given."""
    fine_labels: bool = False
    """Read `fine_label` (CIFAR-100's 100 classes) instead of `coarse_label` (20)."""
    augment: bool = False
    """Train on random crops (padding 4) and flips of the images, as the paper does on CIFAR."""
    train_limit: int | None = None
    """Train on at most so many examples, as balanced as the data."""
    eval_limit: int | None = None
    """Evaluate on at most so many examples of every other split, as balanced as the data."""
    test_limit: int | None = None
    """The same of the test split alone; `eval_limit` if not given."""
    validation_share: float = 0.2
    """Share of the training split that becomes the validation split where the data has none."""
    split_seed: int = 2026
    """Seed of that split, of the limits and of the built-in data; not the seed of training."""

    def __post_init__(self) -> None:
        for name in ("text_column", "label_column", "image_column"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise InputError(f"data.{name} must be the name of a column, not {value!r}.")
        for name in ("fine_labels", "augment"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"data.{name} must be true or false, not {getattr(self, name)!r}.")
        for name in ("image_size", "train_limit", "eval_limit", "test_limit"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), 1)
        _check_integer("max_length", self.max_length, 3)
        _check_integer("split_seed", self.split_seed, 0)
        share = self.validation_share
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise InputError(f"data.validation_share must lie between 0 and 1, not {share!r}.")
        if self.text_column and self.image_column:
            raise InputError("data.text_column and data.image_column exclude each other; give one of them.")
        if self.fine_labels and self.label_column:
            raise InputError("data.fine_labels and data.label_column exclude each other; give one of them.")


def _check_integer(name: str, value: object, lowest: int) -> None:
    # sampling and splitting take 32-bit seeds, and no count comes near that
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value < 2**32:
        raise InputError(f"data.{name} must be a whole number from {lowest} to {2**32 - 1}, not {value!r}.")

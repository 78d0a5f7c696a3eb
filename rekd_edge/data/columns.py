"""Columns of tables to examples: which column is what, and which label has which id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rekd_edge.columns import IMAGE_COLUMNS, LABEL_COLUMNS, TEXT_COLUMNS
from rekd_edge.data.examples import SPLIT_NAMES, DataSource, EncodedImages, Examples
from rekd_edge.data.settings import DataSettings
from rekd_edge.errors import InputError
from rekd_edge.settings import shown, shown_key

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["source_from_tables"]

_WHOLE = re.compile(r"[+-]?\d{1,18}")
_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?")


def source_from_tables(tables: dict[str, Dataset], settings: DataSettings) -> DataSource:
    """Read inputs and labels out of one table a split, or out of the only one, which may go by the name of its file.

    A split whose every label is -1 (the Hub's mark for a label that is kept back) is left out.

    Raises:
        InputError: a column is missing or of the wrong type, a split is empty, values are missing, there is one class
            only, or the labels differ between splits.
    """
    columns = tables[_reference(tables)].column_names
    task, input_column = _input_column(columns, settings)
    label_column = _label_column(columns, settings)
    labels = {}

    for name, table in tables.items():
        _check_rows(name, table, (input_column, label_column))
        declared, ids = _read_labels(name, table, label_column)
        if not (ids == -1).all():
            labels[name] = declared, ids

    if not labels:
        raise InputError(f"No split has labels in its column {label_column!r}; name another data.label_column.")

    label_names, aligned = align_labels(labels)
    splits = {}

    for name, ids in aligned.items():
        table = tables[name]
        inputs = _texts(name, table, input_column) if task == "text" else _images(name, table, input_column)
        splits[name] = Examples(inputs, ids)

    return DataSource(task, label_names, splits)


def align_labels(
    labels: dict[str, tuple[list[str], NDArray[np.int64]]],
) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """One set of label ids for all splits, from each split's label names and its ids in them.

    The names and their order are those of the training split, or of the first one where there is none.

    Raises:
        InputError: that split has one class only, or another one has labels that it lacks.
    """
    reference = _reference(labels)
    names, reference_ids = labels[reference]

    known = {names[i] for i in np.unique(reference_ids)}
    if len(known) < 2:
        raise InputError(
            f"{_said(reference)} has the single label {shown(next(iter(known)))}; classification needs at least two."
        )

    aligned = {}
    for split, (own_names, ids) in labels.items():
        used = [own_names[i] for i in np.unique(ids)]
        unknown = [name for name in own_names if name not in names] or [name for name in used if name not in known]
        if unknown:
            raise InputError(
                f"The labels differ between splits: {split} has {_listed(unknown)}, {reference} has "
                f"{_listed(sorted(known))}; make them agree."
            )

        aligned[split] = np.array([names.index(name) for name in own_names], dtype=np.int64)[ids]

    return list(names), aligned


def _reference(splits: Iterable[str]) -> str:
    """The split that the others must agree with: the training split, or the first one where there is none."""
    names = list(splits)
    return "train" if "train" in names else names[0]


def _input_column(columns: Sequence[str], settings: DataSettings) -> tuple[Literal["text", "image"], str]:
    if settings.text_column is not None:
        return "text", _named(columns, settings.text_column, "text")
    if settings.image_column is not None:
        return "image", _named(columns, settings.image_column, "image")

    text = next((name for name in TEXT_COLUMNS if name in columns), None)
    image = next((name for name in IMAGE_COLUMNS if name in columns), None)
    if text is not None and image is not None:
        raise InputError(
            f"The data has texts ({text}) and images ({image}); choose with --set data.text_column={text} "
            f"or --set data.image_column={image}."
        )

    if text is not None:
        return "text", text
    if image is not None:
        return "image", image

    raise InputError(
        f"The data has no text or image column that is known by its name, only: {_listed(columns)}; "
        "name it with --set data.text_column=… or data.image_column=…."
    )


def _label_column(columns: Sequence[str], settings: DataSettings) -> str:
    if settings.label_column is not None:
        return _named(columns, settings.label_column, "label")

    candidates = ("fine_label",) if settings.fine_labels else LABEL_COLUMNS
    label = next((name for name in candidates if name in columns), None)
    if label is None:
        wanted = "fine_label column" if settings.fine_labels else "label column that is known by its name"
        raise InputError(f"The data has no {wanted}, only: {_listed(columns)}; name it with --set data.label_column=….")

    return label


def _named(columns: Sequence[str], name: str, kind: str) -> str:
    if name not in columns:
        raise InputError(
            f"The data has no column {name!r}, only: {_listed(columns)}; name one of them as data.{kind}_column."
        )
    return name


def _check_rows(split: str, table: Dataset, columns: tuple[str, ...]) -> None:
    """Refuse an empty split, and columns that a split lacks or that have gaps."""
    if not len(table):
        raise InputError(f"{_said(split)} is empty; give it examples or remove it.")

    for column in columns:
        if table.column_names.count(column) > 1:
            raise InputError(
                f"{_said(split)} has two columns that are called {column!r}; rename or remove one of them."
            )

        if column not in table.column_names:
            raise InputError(
                f"{_said(split)} has no column {column!r}, only: {_listed(table.column_names)}; "
                "name its columns as in the other splits."
            )

        values = table.data.column(column)
        if values.null_count:
            first = values.is_null().to_pylist().index(True)
            raise InputError(
                f"{_said(split)} has {values.null_count} missing values in its column {column!r}, the first in row "
                f"{first + 1}; fill or remove those rows."
            )


def _read_labels(split: str, table: Dataset, column: str) -> tuple[list[str], NDArray[np.int64]]:
    """The names of the labels, and the id of each row's label among them (-1 where the Hub keeps it back)."""
    import pyarrow as pa
    from datasets import ClassLabel

    feature, values = table.features[column], table.data.column(column)
    if isinstance(feature, ClassLabel):
        ids = np.asarray(values.to_pylist())
        if ids.min() < -1 or ids.max() >= len(feature.names) or (ids.min() == -1 and ids.max() > -1):
            raise InputError(
                f"{_said(split)} has labels outside 0 to {len(feature.names) - 1} in its column {column!r}; "
                "remove those rows."
            )

        return list(feature.names), ids.astype(np.int64)

    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        plain = _plain_labels(split, values.to_pylist(), column)
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        plain = values.to_pylist()
    else:
        raise InputError(
            f"The labels in column {column!r} are neither strings nor whole numbers, but {shown(values[0].as_py())} in "
            "row 1; name another data.label_column."
        )

    names, ids = np.unique(np.asarray(plain), return_inverse=True)
    return [str(name) for name in names], ids.astype(np.int64)


def _plain_labels(split: str, labels: list[str], column: str) -> list[Any]:
    """Labels as they are meant where all are texts, as in a CSV: whole numbers, truth values, or texts."""
    if "" in labels:
        raise InputError(
            f"{_said(split)} has an empty label in its column {column!r}, in row {labels.index('') + 1}; fill or "
            "remove that row."
        )

    different = set(labels)
    if all(_WHOLE.fullmatch(label) for label in different):
        return [int(label) for label in labels]
    if {label.lower() for label in different} <= {"true", "false"}:
        return [label.lower() == "true" for label in labels]

    if all(_DECIMAL.fullmatch(label) for label in different):
        row = next(i for i, label in enumerate(labels) if not _WHOLE.fullmatch(label))
        raise InputError(
            f"The labels in column {column!r} are neither strings nor whole numbers, but {shown(labels[row])} in row "
            f"{row + 1}; name another data.label_column."
        )

    return labels


def _texts(split: str, table: Dataset, column: str) -> list[str]:
    texts = table.data.column(column).to_pylist()
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"The column {column!r} of {_said(split, False)} is not text; name another data.text_column.")
    return texts


def _images(split: str, table: Dataset, column: str) -> EncodedImages:
    """Images as the files they came in: nothing is decoded."""
    from datasets import Image

    try:
        images = table.select_columns(column).cast_column(column, Image(decode=False))
    except Exception as error:  # pyarrow's and datasets' own kinds of type errors
        raise InputError(
            f"The column {column!r} of {_said(split, False)} holds no images; name another data.image_column."
        ) from error

    return EncodedImages(images, column)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown_key, names[:10])) + (", …" if len(names) > 10 else "")


def _said(split: str, begins: bool = True) -> str:
    """A split in a sentence; the table of a single file goes by the file's name."""
    if split not in SPLIT_NAMES.values():
        return split
    return f"{'The' if begins else 'the'} {split} split"

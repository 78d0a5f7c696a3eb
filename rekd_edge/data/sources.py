"""`--data SPEC` to a data source: the built-in data, a file, a folder, or a name on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rekd_edge.data.columns import source_from_tables
from rekd_edge.data.digits import digits
from rekd_edge.data.eraser import eraser
from rekd_edge.data.examples import DataSource, Examples
from rekd_edge.data.planted import planted
from rekd_edge.data.sampling import stratified_sample, stratified_split
from rekd_edge.data.settings import DataSettings
from rekd_edge.data.tables import READERS, file_table, folder_tables, hub_tables
from rekd_edge.errors import InputError
from rekd_edge.progress import say
from rekd_edge.settings import shown

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["load_data"]

BUILTIN: dict[str, Callable[[int], DataSource]] = {"builtin:digits": digits, "builtin:planted": planted}
ERASER = "eraser:"
CONFORMAL = "conformal"
SPLITS = ("train", "validation", "test", CONFORMAL)
HUB_NAMES = ("imdb", "cifar10", "cifar100")


def load_data(spec: str, settings: DataSettings) -> DataSource:
    """Load what `spec` names, make a validation split if it has none, and apply the limits.

    Args:
        spec: `imdb`, `cifar10`, `cifar100` or another `owner/name` on the Hub; a folder of
            `{train,validation,test}.{parquet,csv,jsonl}` or of images; a single such file, or a folder of images
            without splits, which is split in three;
            `eraser:FOLDER`; `builtin:digits` or `builtin:planted`.
        settings: columns, limits and seed.

    Raises:
        InputError: there is no such data, or it can't be used as it is; the sentence says what to change.
    """
    source = _load(spec, settings)
    if "validation" not in source.splits and "train" in source.splits:
        splits = _with_validation(source.splits, settings)
        source = replace(source, splits=splits, made={**source.made, "validation": settings.validation_share})

    if settings.conformal_share and "validation" in source.splits:
        source = replace(source, splits=_with_conformal(source.splits, settings))

    splits = {name: source.splits[name] for name in SPLITS if name in source.splits}
    if "test" in source.made:
        counts = ", ".join(f"{name} {len(examples)}" for name, examples in splits.items())
        say(f"{spec} is split by itself: {counts} examples (data.split_seed={settings.split_seed}).")

    return replace(source, splits={name: _limited(name, examples, settings) for name, examples in splits.items()})


def _load(spec: str, settings: DataSettings) -> DataSource:
    if spec in BUILTIN:
        return BUILTIN[spec](settings.split_seed)

    if spec.startswith(ERASER):
        return eraser(Path(spec.removeprefix(ERASER)).expanduser())

    place = Path(spec).expanduser()
    if spec and place.is_dir():
        tables = folder_tables(place)
        split = tables.keys() <= set(SPLITS)
        return source_from_tables(tables, settings) if split else _split_in_three(tables, settings)
    if place.is_file():
        return _split_in_three({place.name: file_table(place)}, settings)
    if spec in HUB_NAMES or re.fullmatch(r"\w[\w.-]*/[\w.-]+", spec):
        return source_from_tables(hub_tables(spec), settings)

    raise InputError(
        f"There is no data {shown(spec)}; give {', '.join(HUB_NAMES)} or owner/name on the Hugging Face Hub, a file "
        f"({', '.join(READERS)}), a folder with train, validation or test files or images, {ERASER}FOLDER, "
        f"{' or '.join(BUILTIN)}."
    )


def _split_in_three(table: dict[str, Dataset], settings: DataSettings) -> DataSource:
    """The rows of one table, by the name of its file or folder; a share of every label is set aside for the test."""
    source = source_from_tables(table, settings)
    ((name, rows),) = source.splits.items()
    counts = np.bincount(rows.labels, minlength=len(source.label_names))

    rarest = int(np.argmin(counts))
    if counts[rarest] < len(SPLITS) - 1:
        raise InputError(
            f"{name} has {counts[rarest]} of the label {shown(source.label_names[rarest])}, too few to have some "
            "in train, validation and test; add or remove rows, or give a folder with a file for each split."
        )

    kept, held_out = stratified_split(rows.labels, settings.test_share, settings.split_seed, "test")
    splits = {"train": rows.select(kept), "test": rows.select(held_out)}
    return replace(source, splits=splits, made={"test": settings.test_share})


def _with_validation(splits: dict[str, Examples], settings: DataSettings) -> dict[str, Examples]:
    train = splits["train"]
    kept, held_out = stratified_split(train.labels, settings.validation_share, settings.split_seed, "validation")
    return {**splits, "train": train.select(kept), "validation": train.select(held_out)}


def _with_conformal(splits: dict[str, Examples], settings: DataSettings) -> dict[str, Examples]:
    rows = splits["validation"]
    kept, apart = stratified_split(rows.labels, settings.conformal_share, settings.split_seed, CONFORMAL)
    return {**splits, "validation": rows.select(kept), CONFORMAL: rows.select(apart)}


def _limited(name: str, examples: Examples, settings: DataSettings) -> Examples:
    limit = settings.train_limit if name == "train" else settings.eval_limit
    if name == "test" and settings.test_limit is not None:
        limit = settings.test_limit
    if limit is None or limit >= len(examples):
        return examples
    return examples.select(stratified_sample(examples.labels, limit, settings.split_seed))

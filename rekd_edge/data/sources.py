"""`--data SPEC` to a data source: the built-in data, a folder, or a name on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rekd_edge.data.columns import source_from_tables
from rekd_edge.data.digits import digits
from rekd_edge.data.examples import DataSource, Examples
from rekd_edge.data.planted import planted
from rekd_edge.data.sampling import stratified_sample, stratified_split
from rekd_edge.data.settings import DataSettings
from rekd_edge.data.tables import folder_tables, hub_tables
from rekd_edge.errors import InputError

__all__ = ["load_data"]

BUILTIN: dict[str, Callable[[int], DataSource]] = {"builtin:digits": digits, "builtin:planted": planted}
HUB_NAMES = ("imdb", "cifar10", "cifar100")


def load_data(spec: str, settings: DataSettings) -> DataSource:
    """Load what `spec` names, make a validation split if it has none, and apply the limits.

    Args:
        spec: `imdb`, `cifar10`, `cifar100` or another `owner/name` on the Hub; a folder of
            `{train,validation,test}.{parquet,csv,jsonl}` or of images; `builtin:digits` or `builtin:planted`.
        settings: columns, limits and seed.

    Raises:
        InputError: there is no such data, or it can't be used as it is; the sentence says what to change.
    """
    source = _load(spec, settings)
    if "validation" not in source.splits and "train" in source.splits:
        source = replace(source, splits=_with_validation(source.splits, settings))
    in_order = [name for name in ("train", "validation", "test") if name in source.splits]
    return replace(source, splits={name: _limited(name, source.splits[name], settings) for name in in_order})


def _load(spec: str, settings: DataSettings) -> DataSource:
    if spec in BUILTIN:
        return BUILTIN[spec](settings.split_seed)
    folder = Path(spec).expanduser()
    if spec and folder.is_dir():
        return source_from_tables(folder_tables(folder), settings)
    if spec in HUB_NAMES or re.fullmatch(r"\w[\w.-]*/[\w.-]+", spec):
        return source_from_tables(hub_tables(spec), settings)
    raise InputError(
        f"There is no data {spec!r}; give {', '.join(HUB_NAMES)} or owner/name on the Hugging Face Hub, a folder with "
        f"train, validation or test files (.parquet, .csv, .jsonl) or images, {' or '.join(BUILTIN)}."
    )


def _with_validation(splits: dict[str, Examples], settings: DataSettings) -> dict[str, Examples]:
    train = splits["train"]
    kept, held_out = stratified_split(train.labels, settings.validation_share, settings.split_seed)
    return {**splits, "train": train.select(kept), "validation": train.select(held_out)}


def _limited(name: str, examples: Examples, settings: DataSettings) -> Examples:
    limit = settings.train_limit if name == "train" else settings.eval_limit
    if name == "test" and settings.test_limit is not None:
        limit = settings.test_limit
    if limit is None or limit >= len(examples):
        return examples
    return examples.select(stratified_sample(examples.labels, limit, settings.split_seed))

"""The rows that an export calibrates and verifies on: of the run's data, of other data, or generated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rekd_edge.data import DataSettings, DataSource, Examples, TextFeatures, load_data
from rekd_edge.errors import InputError
from rekd_edge.export.parity import Feed
from rekd_edge.modeling import RationaleConfig
from rekd_edge.progress import say
from rekd_edge.training.preparation import Preprocessing

__all__ = [
    "CALIBRATION_ROWS",
    "VERIFIED_POSITIONS",
    "Sample",
    "data_for_export",
    "data_sample",
    "generated_sample",
    "rows_apart",
    "single_rows",
    "verified_rows",
]

VERIFIED_ROWS = 1000
VERIFIED_POSITIONS = 2**16
"""Tokens or patches of the verified rows together, at most: a thousand texts of 64 tokens, 256 of 256."""
CALIBRATION_ROWS = 128
GENERATED_ROWS = 64
SPLITTING = ("conformal_share", "validation_share", "test_share", "split_seed")
"""Settings that decide which rows are set apart."""


@dataclass(frozen=True)
class Sample:
    """Rows to calibrate and to verify on."""

    source: str
    """`validation` or `generated`."""
    feeds: list[Feed]
    """To verify on."""
    labels: NDArray[np.int64] | None
    """Of `feeds`, where they are known."""
    calibration: list[Feed]


def data_for_export(
    config: RationaleConfig, spec: str | None, settings: DataSettings | None, record: dict[str, Any], needed: bool
) -> DataSource | None:
    """Load the data to calibrate and verify on.

    Args:
        config: of the run.
        spec: the SPEC that the user gave; None for the run's own data.
        settings: columns of that data.
        record: the run's `training.json`, which names its data.
        needed: whether the export cannot do without.

    Returns:
        None where the run's own data is gone and not needed.

    Raises:
        InputError: the data does not fit the run, or is missing and needed.
    """
    if spec is not None:
        return _fitting_data(config, spec, settings or DataSettings())

    recorded = record.get("recipe", {}).get("data", {})
    settings = settings or DataSettings(**{key: value for key, value in recorded.items() if key != "spec"})

    try:
        return _fitting_data(config, str(recorded.get("spec")), settings)
    except InputError as error:
        if needed:
            raise InputError(
                f"The run's data is not at hand ({error}) --trim-vocabulary reads the training texts; give them with "
                "--calibration-data, or leave it out."
            ) from error

        say(f"The run's data is not at hand ({error}) The bundle is verified on generated inputs.")
        return None


def verified_rows(data: DataSource) -> Examples:
    """The rows of the validation split that a bundle is verified on."""
    examples = data.split("validation")
    return examples.select(range(min(VERIFIED_ROWS, len(examples))))


def rows_apart(data: DataSource, settings: DataSettings | None, record: dict[str, Any]) -> Examples | None:
    """The run's own rows that nothing was trained, chosen or calibrated on; None where it kept none.

    Args:
        data: of the run, as it is read now.
        settings: how, where that is not how the run read it; other shares or seeds would draw rows that it met.
        record: the run's `training.json`.
    """
    recorded = record.get("recipe", {}).get("data", {})
    same = settings is None or all(recorded.get(name) == getattr(settings, name) for name in SPLITTING)
    return data.splits.get("conformal") if same else None


def data_sample(preprocessing: Preprocessing, data: DataSource, most_positions: int | None) -> Sample:
    """Rows of the validation split to verify on, and of the training split to calibrate on.

    Args:
        preprocessing: of the run.
        data: that fits the run.
        most_positions: tokens or patches of all verified rows together; None for no limit.
    """
    verify, train = verified_rows(data), data.split("train")
    chosen = np.random.default_rng(0).permutation(len(train))[:CALIBRATION_ROWS]
    calibrate = train.select(sorted(chosen.tolist()))

    feeds: list[Feed] = []
    positions = 0
    for feed in single_rows(preprocessing.features(verify)):
        positions += _positions(feed, preprocessing)
        if feeds and most_positions is not None and positions > most_positions:
            break
        feeds.append(feed)

    return Sample(
        source="validation",
        feeds=feeds,
        labels=verify.labels[: len(feeds)],
        calibration=list(single_rows(preprocessing.features(calibrate))),
    )


def generated_sample(preprocessing: Preprocessing, config: RationaleConfig) -> Sample:
    """Random rows to verify on, and none to calibrate on: random tokens would calibrate for what never occurs."""
    rng = np.random.default_rng(0)
    feeds: list[Feed] = []

    for _ in range(GENERATED_ROWS):
        if preprocessing.image is not None:
            shape = (1, 3, preprocessing.image.height, preprocessing.image.width)
            feeds.append({"pixel_values": rng.normal(size=shape).astype(np.float32)})
            continue

        assert preprocessing.tokenizer is not None
        assert config.max_length is not None
        words = rng.integers(0, preprocessing.tokenizer.get_vocab_size(), rng.integers(0, config.max_length - 1))
        ids = preprocessing.tokenizer.encode("").ids
        row = np.array([[*ids[:1], *words, *ids[1:]]], dtype=np.int64)
        feeds.append({"input_ids": row, "attention_mask": np.ones_like(row)})

    return Sample("generated", feeds, None, [])


def single_rows(features: Any) -> Iterator[Feed]:
    """Features as graph inputs, one unpadded row at a time."""
    for i in range(len(features)):
        if isinstance(features, TextFeatures):
            row = features.input_ids[i][None].astype(np.int64)
            yield {"input_ids": row, "attention_mask": np.ones_like(row)}
        else:
            yield {"pixel_values": features[i]["pixel_values"][None]}


def _positions(feed: Feed, preprocessing: Preprocessing) -> int:
    """Tokens or patches of a row."""
    if preprocessing.image is None:
        return feed["input_ids"].shape[1]
    return feed["pixel_values"][0, 0].size // preprocessing.image.patch_size**2


def _fitting_data(config: RationaleConfig, spec: str, settings: DataSettings) -> DataSource:
    data = load_data(spec, settings)
    if data.task != config.task:
        raise InputError(f"The run reads {config.task}, {spec} is {data.task}; give --calibration-data of its kind.")
    if data.label_names != config.labels:
        raise InputError(f"{spec} has other labels than the run; give --calibration-data with the same.")
    return data

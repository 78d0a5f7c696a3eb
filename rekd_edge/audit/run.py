"""`rekd-edge audit`: every check, one after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rekd_edge.audit.checks import CHECKS, Finding, Hearing
from rekd_edge.data import DataSettings, load_data
from rekd_edge.data.sampling import stratified_sample
from rekd_edge.errors import InputError
from rekd_edge.progress import steps
from rekd_edge.systems import open_system

__all__ = ["audit"]

LEAST = 50
"""Examples below which no interval says anything."""
TRAINING = 2000
"""Training examples that the independent predictor sees, at most."""


def audit(
    path: Path, spec: str, settings: DataSettings | None = None, split: str = "test", limit: int = 1000
) -> list[Finding]:
    """Ask a run or a bundle every question of `audit.checks`.

    Args:
        path: a run folder or a bundle.
        spec: the data SPEC; its train split, if it has one, teaches the independent predictor.
        settings: columns and limits of the data.
        split: on which the questions are asked.
        limit: at most so many examples, a stratified sample.

    Raises:
        InputError: neither run nor bundle, data of another modality or label set, fewer than 50 examples, or a control.
    """
    settings = settings or DataSettings()
    data = load_data(spec, replace(settings, train_limit=min(settings.train_limit or TRAINING, TRAINING)))
    system = open_system(path, data)
    examples = data.split(split)
    examples = examples.select(stratified_sample(examples.labels, limit, settings.split_seed))
    if len(examples) < LEAST:
        raise InputError(f"{len(examples)} examples are too few for an audit; give a split with at least {LEAST}.")

    outsider = None
    if "train" in data.splits:
        train = data.split("train")
        outsider = system.encode(train.inputs), train.labels

    hearing = Hearing(system, system.encode(examples.inputs), examples.labels, outsider)
    if len(hearing.answers.rows) != len(examples):
        raise InputError(f"{path} is a control, whose rationales are random; audit a run that selects.")

    found = []
    with steps("audit") as step:
        for number, check in enumerate(CHECKS):
            step(number, len(CHECKS), check.__name__.replace("_", " "))
            found.append(check(hearing))

    return [finding for finding in found if finding is not None]

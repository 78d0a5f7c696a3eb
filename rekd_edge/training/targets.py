"""What teachers say of a training split, computed once and kept memory-mapped, so that no step runs a teacher.

    FOLDER/KEY/
        teacher_logits.npy              float32 [examples, teachers, classes]
        teacher_selection_logits.npy    float32 [positions of all examples, teachers, 2]
        teacher_mask.npy                bool    [positions of all examples, teachers]
        ends.npy                        int64   [examples], where an example's positions end
        done.json                       how many examples are written, in order of length

KEY is a hash of the teachers' weights, the data and how it is read: a changed teacher or data set has another key. The
work is done in `KEY.partial`, under a lock, and goes on there after an interruption.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from rekd_edge.data.features import PER_TOKEN_TARGETS, ImageFeatures, Targets, TextFeatures
from rekd_edge.files import read_json, write_json
from rekd_edge.progress import steps
from rekd_edge.runs import source_digests
from rekd_edge.training.teacher import TeacherFacts, Teachers

__all__ = ["read_targets", "store_targets", "targets_key"]

FORMAT = 1
"""To be raised whenever a teacher says something else of the same data."""
BATCH_SIZE = 64
"""The same for every student: the last digit of a target depends on what shares its batch."""
FLUSH_EVERY = 20
"""Batches after which the work done so far is safe."""


def targets_key(teachers: Sequence[TeacherFacts], data: str, *reading: Any) -> str:
    """The name of a store.

    Args:
        teachers: the runs; their configurations and weights count, not where they stand.
        data: fingerprint of the data.
        reading: everything else that changes what the teachers see or say.
    """
    files = source_digests([teacher.folder for teacher in teachers], None)["teacher"]
    return hashlib.sha256(json.dumps([FORMAT, data, reading, files]).encode()).hexdigest()[:32]


def store_targets(
    folder: Path,
    load: Callable[[], Teachers],
    features: TextFeatures | ImageFeatures,
    collate: Callable[[list[Any]], dict[str, Tensor]],
    lengths: NDArray[np.int64] | None,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    batch_size: int = BATCH_SIZE,
) -> None:
    """Compute the targets in `folder`, unless they are there.

    Args:
        folder: the store, named by `targets_key`.
        load: gives the teachers, called only if there is something to compute.
        features: the training split.
        collate: puts its items into a batch.
        lengths: positions of each example, those of like length share a batch; None where all batches have as many,
            and what is said of padding is kept then.
        device: where the teachers are.
        autocast: precision in which they run.
        batch_size: examples that they see at a time.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # students of one teacher may start together
        if not folder.is_dir():
            _compute(folder, load(), features, collate, lengths, device, autocast, batch_size)


def read_targets(folder: Path) -> Targets:
    """The memory-mapped targets of a finished store, one array an example: [positions, teachers, ...] or [teachers,
    classes].
    """
    ends = np.load(folder / "ends.npy")
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("teacher_*.npy"))}
    return {name: _Rows(array, ends) if name in PER_TOKEN_TARGETS else array for name, array in arrays.items()}


class _Rows(Sequence[NDArray[Any]]):
    """An array of all examples' positions, read example by example."""

    def __init__(self, values: NDArray[Any], ends: NDArray[np.int64]) -> None:
        self.values = values
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.values[self.ends[index - 1] if index else 0 : self.ends[index]]


@torch.no_grad()
def _compute(
    folder: Path,
    teachers: Teachers,
    features: TextFeatures | ImageFeatures,
    collate: Callable[[list[Any]], dict[str, Tensor]],
    lengths: NDArray[np.int64] | None,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
    batch_size: int,
) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(exist_ok=True)
    order = np.arange(len(features)) if lengths is None else np.argsort(-lengths, kind="stable")
    done = read_json(partial / "done.json")["examples"] if (partial / "done.json").is_file() else 0
    arrays: dict[str, NDArray[Any]] = {}
    ends: NDArray[np.int64] | None = None
    with steps("teacher targets") as show:
        for number, start in enumerate(range(done, len(order), batch_size), 1):
            chosen = order[start : start + batch_size]
            batch = collate([features[index] for index in chosen])
            with autocast():
                found = teachers.targets({name: value.to(device) for name, value in batch.items()})
            if ends is None:
                positions = found["teacher_mask"].shape[1] if "teacher_mask" in found else 0
                ends = np.cumsum(np.full(len(order), positions) if lengths is None else lengths)
                arrays = _open(partial, found, ends, fresh=start == 0)
            for name, values in found.items():
                rows = (values.float() if values.is_floating_point() else values).cpu().numpy()
                for row, index in zip(rows, chosen, strict=True):
                    if name in PER_TOKEN_TARGETS:
                        first = ends[index - 1] if index else 0
                        arrays[name][first : ends[index]] = row[: ends[index] - first]
                    else:
                        arrays[name][index] = row
            if number % FLUSH_EVERY == 0:
                for array in arrays.values():
                    array.flush()  # type: ignore[attr-defined]
                write_json(partial / "done.json", {"examples": start + len(chosen)})
            show(start + len(chosen), len(order))
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]
    write_json(partial / "done.json", {"examples": len(order)})
    partial.rename(folder)


def _open(partial: Path, found: Mapping[str, Tensor], ends: NDArray[np.int64], fresh: bool) -> dict[str, NDArray[Any]]:
    """The arrays of a store to write into, made where it is `fresh`."""
    if not fresh:
        return {name: np.load(partial / f"{name}.npy", mmap_mode="r+") for name in found}
    np.save(partial / "ends.npy", ends)
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in found.items():
        per_token = name in PER_TOKEN_TARGETS
        shape = (int(ends[-1]), *values.shape[2:]) if per_token else (len(ends), *values.shape[1:])
        dtype = np.dtype(np.bool_ if values.dtype == torch.bool else np.float32)
        file = partial / f"{name}.npy"
        arrays[name] = open_memmap(file, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and a SIGBUS where a mapped page has no room
            with file.open("r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return arrays

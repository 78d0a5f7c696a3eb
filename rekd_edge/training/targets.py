"""What teachers say of a training split, computed once and kept memory-mapped, so that no step runs a teacher.

    FOLDER/KEY/
        teacher_logits.npy              float32 [examples, teachers, classes]
        teacher_selection_logits.npy    float32 [positions of all examples, teachers, 2]
        teacher_mask.npy                bool    [positions of all examples, teachers]
        ends.npy                        int64   [examples], where an example's positions end
        done.json                       how many examples are written, in order of length, and a digest of them
        SHA256SUMS                      written last; a store that does not verify is computed anew

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
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from rekd_edge.data.features import PER_TOKEN_TARGETS, ImageFeatures, Targets, TextFeatures
from rekd_edge.errors import InputError
from rekd_edge.files import (
    claim_folder,
    is_ours,
    locked,
    read_json,
    real_folder,
    remove_ours,
    verify_digests,
    write_digests,
    write_json,
)
from rekd_edge.progress import say, steps
from rekd_edge.runs import source_digests
from rekd_edge.training.teacher import TeacherFacts, Teachers

__all__ = ["read_targets", "store_targets", "targets_key"]

FORMAT = 2
"""To be raised whenever a teacher says something else of the same data."""
PURPOSE = "teacher targets"
"""Of the folders of a store."""
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
    files = source_digests([teacher.folder for teacher in teachers])["teacher"]
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

    Raises:
        InputError: a link or somebody else's folder is in the place.
    """
    real_folder(folder.parent)
    with locked(folder, wait=True):  # students of one teacher may start together
        if folder.exists() or folder.is_symlink():
            if (fault := verify_digests(folder) if is_ours(folder, PURPOSE) else "is not ours") is None:
                return
            say(f"The teacher targets {folder} {fault}; they are computed anew.")
            if not remove_ours(folder, PURPOSE):
                raise InputError(f"{folder} {fault}, and rekd-edge did not put it there; remove it.")

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
    partial = claim_folder(folder.with_name(f"{folder.name}.partial"), PURPOSE)
    order = np.arange(len(features)) if lengths is None else np.argsort(-lengths, kind="stable")

    done, digest = _resumed(partial, order, batch_size)
    if (partial / "done.json").exists() and not done:
        say(f"The unfinished teacher targets {partial} do not verify; they are computed anew.")
        remove_ours(partial, PURPOSE)
        claim_folder(partial, PURPOSE)

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

            digest = _extended(digest, arrays, ends, chosen)
            if number % FLUSH_EVERY == 0:
                for array in arrays.values():
                    array.flush()  # type: ignore[attr-defined]
                write_json(partial / "done.json", {"examples": start + len(chosen), "sha256": digest})

            show(start + len(chosen), len(order))

    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]

    write_json(partial / "done.json", {"examples": len(order), "sha256": digest})
    write_digests(partial)
    partial.rename(folder)


def _resumed(partial: Path, order: NDArray[np.int64], batch_size: int) -> tuple[int, str]:
    """How many examples of an unfinished store are written, and their digest; 0 where that is not the one noted."""
    try:
        noted = read_json(partial / "done.json")
        ends = np.load(partial / "ends.npy")
        arrays = {path.stem: np.load(path, mmap_mode="r") for path in partial.glob("teacher_*.npy")}
        digest = ""

        for start in range(0, noted["examples"], batch_size):
            digest = _extended(digest, arrays, ends, order[start : start + batch_size])
    except (InputError, OSError, ValueError, LookupError, TypeError):
        return 0, ""

    same = noted["examples"] <= len(order) and noted["examples"] and noted.get("sha256") == digest
    return (noted["examples"], digest) if same else (0, "")


def _extended(
    digest: str, arrays: Mapping[str, NDArray[Any]], ends: NDArray[np.int64] | None, chosen: NDArray[np.int64]
) -> str:
    """The SHA-256 of all targets written so far: that of the batches before, and this one's examples after it."""
    sha = hashlib.sha256(digest.encode())
    for name in sorted(arrays):
        rows: Sequence[NDArray[Any]] | NDArray[Any] = arrays[name]
        if name in PER_TOKEN_TARGETS:
            assert ends is not None
            rows = _Rows(arrays[name], ends)

        for index in chosen:
            sha.update(np.ascontiguousarray(rows[index]).tobytes())

    return sha.hexdigest()


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

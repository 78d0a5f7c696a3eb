"""Checkpoints that verify: sealed by a list of digests, chosen to resume from, and removed when newer ones are there.

checkpoints/
    checkpoint-STEP/
        model.safetensors, optimizer.pt, scheduler.pt, rng_state*.pth, trainer_state.json
        SHA256SUMS            written last, when all processes have written theirs
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.utils import SAFE_WEIGHTS_NAME

from rekd_edge.errors import InputError
from rekd_edge.files import read_json, verify_digests, write_digests
from rekd_edge.progress import say

__all__ = ["by_step", "choose_checkpoint", "clear_place", "fault_of", "loading", "read_state", "seal"]

_NAME = re.compile(r"checkpoint-([0-9]{1,15})")


def by_step(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by their step, ascending; other names and links are left out."""
    found = {int(match[1]): path for path in folder.glob("*") if (match := _NAME.fullmatch(path.name))}
    return {step: found[step] for step in sorted(found) if found[step].is_dir() and not found[step].is_symlink()}


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The Trainer's own state: `global_step`, `log_history`, `best_model_checkpoint` and more.

    Raises:
        InputError: it is missing or damaged.
    """
    return read_json(checkpoint / TRAINER_STATE_NAME)


def choose_checkpoint(folder: Path, processes: int, steps: int) -> Path | None:
    """The newest checkpoint that verifies; says on standard error which were passed over, and why.

    Args:
        folder: that of the run's checkpoints.
        processes: how many processes share the run, each with its own random state.
        steps: of the whole training.

    Returns:
        None where there is none to go on from.

    Raises:
        InputError: one of them is a link.
    """
    if link := next((path for path in folder.glob("checkpoint-*") if path.is_symlink()), None):
        raise InputError(f"{link} is a link, which is not followed; remove it.")

    checkpoints = list(reversed(by_step(folder).values()))
    for number, checkpoint in enumerate(checkpoints):
        fault = fault_of(checkpoint, processes, steps)
        if fault is None:
            if number:
                say(f"Training goes on from {checkpoint}.")
            return checkpoint

        say(f"{checkpoint} is passed over: it {fault}.")

    if checkpoints:
        say("Training begins anew.")

    return None


def fault_of(checkpoint: Path, processes: int, steps: int) -> str | None:
    """What keeps a run from going on with a checkpoint, as the end of a sentence; None where nothing does.

    The digests are those of every file, and the state is that of this step. The best checkpoint so far, whose weights
    the run ends with, must verify too.
    """
    if (fault := verify_digests(checkpoint)) is not None:
        return fault

    states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{i}.pth" for i in range(processes)]
    for name in (SAFE_WEIGHTS_NAME, OPTIMIZER_NAME, SCHEDULER_NAME, *states):
        if not (checkpoint / name).is_file():
            return f"lacks {name}"

    step = int(checkpoint.name.rpartition("-")[2])
    try:
        state = read_state(checkpoint)
    except InputError:
        return f"has a damaged {TRAINER_STATE_NAME}"

    if state.get("global_step") != step or step > steps:
        return f"says that it is of step {state.get('global_step')} of {steps}"

    best = state.get("best_model_checkpoint")
    if best is None or Path(str(best)).name == checkpoint.name:
        return None

    here = checkpoint.parent / Path(str(best)).name  # another working directory or a moved run has another path
    if here not in by_step(checkpoint.parent).values():
        return f"needs the weights of {here.name}, which is missing"

    fault = verify_digests(here)
    return None if fault is None else f"needs the weights of {here.name}, which {fault}"


def clear_place(checkpoint: Path) -> None:
    """Make room for a new checkpoint: remove what was left there, so that nothing is written through it.

    Raises:
        InputError: a link is in the place.
    """
    if checkpoint.is_symlink():
        raise InputError(f"{checkpoint} is a link, which is not followed; remove it.")
    if checkpoint.is_dir():
        shutil.rmtree(checkpoint)


def seal(checkpoint: Path, best: str | None) -> None:
    """List the digests of a complete checkpoint; then remove all others but the best one and the one before.

    Args:
        checkpoint: just written by all processes.
        best: the folder of the best checkpoint so far.
    """
    write_digests(checkpoint)

    others = by_step(checkpoint.parent)
    this = int(checkpoint.name.rpartition("-")[2])
    older = [step for step in others if step < this]
    kept = [step for step in older if best is not None and others[step].name == Path(best).name] or older[-1:]

    for step, path in others.items():
        if step not in (this, *kept):
            shutil.rmtree(path)


@contextmanager
def loading(checkpoint: str | None) -> Iterator[None]:
    """Say in one sentence that a checkpoint cannot be loaded, whatever torch or pickle raise.

    Raises:
        InputError: the work within failed.
    """
    try:
        yield
    except Exception as error:
        raise InputError(
            f"{checkpoint} cannot be loaded ({type(error).__name__}); remove it, and --resume goes on from the "
            "checkpoint before it."
        ) from error

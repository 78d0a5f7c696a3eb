"""Checkpoints of the Trainer: which of them a run resumes from."""

from __future__ import annotations

import warnings
from pathlib import Path

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from rekd_edge.errors import InputError
from rekd_edge.files import read_json
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.processes import on_first, world
from rekd_edge.training.trainer import RationaleTrainer

__all__ = ["is_whole", "last_checkpoint", "train_from_last_checkpoint"]


def train_from_last_checkpoint(trainer: RationaleTrainer, checkpoints: Path) -> None:
    """Train to the end, from the last whole checkpoint where there is one; the best epoch's weights are loaded then."""
    last = on_first(lambda: last_checkpoint(checkpoints))
    if last is not None:
        on_first(lambda: _point_to_best(last))

    if last is not None and _had_stopped(last, trainer.context.config):
        trainer.state = TrainerState.load_from_json(str(last / TRAINER_STATE_NAME))
        trainer._load_best_model()
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="mtime may not be reliable")  # checkpoints are numbered
        trainer.train(resume_from_checkpoint=None if last is None else str(last))


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The whole checkpoint with the most steps."""
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [path for path in found if is_whole(path)]
    return whole[-1] if whole else None


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: the random states of all processes and its own state come last."""
    try:
        read_json(checkpoint / TRAINER_STATE_NAME)
    except InputError:
        return False
    return len(list(checkpoint.glob("rng_state*.pth"))) >= world()


def _point_to_best(checkpoint: Path) -> None:
    """Correct the path of the best checkpoint, which another working directory or a moved run makes wrong."""
    file = str(checkpoint / TRAINER_STATE_NAME)
    state = TrainerState.load_from_json(file)
    if state.best_model_checkpoint is None:
        return
    here = checkpoint.parent / Path(state.best_model_checkpoint).name
    if not here.is_dir():
        raise InputError(f"The best checkpoint {here} is missing; restore it, or give --output a new folder.")
    if state.best_model_checkpoint != str(here):
        state.best_model_checkpoint = str(here)
        state.save_to_json(file)


def _had_stopped(checkpoint: Path, config: TrainingConfig) -> bool:
    """Whether training ended early here, and only what follows was cut off."""
    if config.early_stopping is None:
        return False
    figure, best = f"eval_{config.select_by}", max if config.select_by == "accuracy" else min
    entries = read_json(checkpoint / TRAINER_STATE_NAME)["log_history"]
    dev = [entry[figure] for entry in entries if figure in entry]
    return bool(dev) and len(dev) - 1 - dev.index(best(dev)) >= config.early_stopping

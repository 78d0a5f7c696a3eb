"""`rekd-edge train`: from settings to a finished run folder, resumable until then."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rekd_edge.files import check_place, locked
from rekd_edge.runs import RunFolder, begin, finish, reopen, source_digests, withdraw
from rekd_edge.training.allocator import keep_freed_memory
from rekd_edge.training.configuration import REMOVED, TrainingConfig, unused_by
from rekd_edge.training.control import control_stage, given_control
from rekd_edge.training.processes import is_first, join, on_first, world
from rekd_edge.training.stages import (
    Calibrated,
    Callbacks,
    Fitted,
    Prepared,
    Settled,
    calibrate,
    fit,
    prepare,
    settle,
)
from rekd_edge.versions import versions

__all__ = ["train"]


def train(
    config: TrainingConfig, output: Path, resume: bool = False, callbacks: Callbacks = lambda stage: []
) -> dict[str, Any]:
    """Train one run and write its folder: `config.json`, `model.safetensors`, preprocessing, `training.json`,
    `metrics.json`. Where the recipe asks for a control and none is given, it is trained first, into `output/control`.

    Args:
        config: the run's settings.
        output: a new folder; until the run is finished it holds `checkpoints/` alone.
        resume: go on from the last checkpoint in `output`; a finished run is left as it is.
        callbacks: shows the progress of each stage (`control`, then the method).

    Returns:
        What `metrics.json` holds.

    Raises:
        InputError: bad settings, data, backbone, teacher or output folder, or another call writes to it; nothing is
            written then.
        FailureError: training ended with weights that are not finite.
    """
    join()
    keep_freed_memory()
    on_first(lambda: check_place(output))
    with ExitStack() as held:
        on_first(lambda: held.enter_context(locked(output)))
        return _train(config, RunFolder(output), resume, callbacks)


def _train(config: TrainingConfig, run: RunFolder, resume: bool, callbacks: Callbacks) -> dict[str, Any]:
    """As `train`, with the output locked."""
    recipe, defaults = _as_json(config), REMOVED | _as_json(TrainingConfig())
    unused = unused_by(config.method, bool(config.teacher))
    counting = {key: value for key, value in (REMOVED | recipe).items() if key not in unused}
    if (finished := on_first(lambda: reopen(run, counting, defaults, resume))) is not None:
        return finished

    prepared = prepare(config)
    given = given_control(prepared)
    sources = _sources(prepared, given)
    made = on_first(lambda: begin(run, recipe, sources))
    try:
        return _train_stages(prepared, given, sources, run, callbacks)
    except BaseException:
        if is_first():
            withdraw(run, made)
        raise


def _train_stages(
    prepared: Prepared, given: RunFolder | None, sources: dict[str, Any], run: RunFolder, callbacks: Callbacks
) -> dict[str, Any]:
    """The stages after `prepare`, in a folder that is begun."""
    control = control_stage(prepared, given, run, lambda config, run: _train(config, run, True, callbacks))

    started = time.perf_counter()
    fitted = fit(prepared, run, callbacks)
    settled = settle(fitted, run, callbacks)
    calibrated = calibrate(fitted)
    if control is not None:
        calibrated.metrics["random_mask_accuracy"] = control.metrics["accuracy"]

    record = _record(prepared, fitted, settled, time.perf_counter() - started)
    record["teacher_sha256"] = sources["teacher"]
    on_first(lambda: _write(run, prepared, calibrated, record))
    return calibrated.metrics


def _as_json(config: TrainingConfig) -> dict[str, Any]:
    return json.loads(json.dumps(config.to_dict()))


def _sources(prepared: Prepared, control: RunFolder | None) -> dict[str, Any]:
    """What a run is made of besides its settings, and how many processes share it: all that a resumed one needs again.

    Raises:
        InputError: a teacher or the control lacks its weights.
    """
    teachers = [teacher.folder for teacher in prepared.teachers]
    digests = source_digests(teachers, None if control is None else control.path)
    return {"data": prepared.data.fingerprint, **digests, "number of processes": world()}


def _record(prepared: Prepared, fitted: Fitted, settled: Settled | None, seconds: float) -> dict[str, Any]:
    """What `training.json` says of how a run was trained."""
    config, data, trainer = prepared.config, prepared.data, fitted.trainer
    return {
        "recipe": config.to_dict(),
        "data": {
            "spec": config.spec,
            "fingerprint": data.fingerprint,
            "examples": {name: len(split) for name, split in data.splits.items()},
            "made": data.made,
        },
        "seed": config.seed,
        "epochs": [entry for entry in trainer.state.log_history if "eval_loss" in entry],
        "steps": trainer.state.global_step,
        "predictor": None if settled is None else asdict(settled),
        "seconds": round(seconds, 1),
        "device": str(trainer.args.device),
        "processes": world(),
        "threads": torch.get_num_threads(),
        "versions": versions("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy"),
    }


def _write(run: RunFolder, prepared: Prepared, calibrated: Calibrated, record: dict[str, Any]) -> None:
    """Finish the run's folder."""

    def save(folder: Path) -> None:
        calibrated.model.cpu().save_pretrained(folder)
        prepared.preprocessing.save(folder)

    finish(run, save, record, calibrated.metrics)

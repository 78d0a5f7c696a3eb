"""`rekd-edge train`: from settings to a finished run folder, resumable until then."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rekd_edge.cards import run_card
from rekd_edge.errors import InputError
from rekd_edge.evaluation import most_frequent
from rekd_edge.files import check_place, locked
from rekd_edge.runs import RunFolder, begin, finish, reopen, source_digests, withdraw
from rekd_edge.training.allocator import keep_freed_memory
from rekd_edge.training.configuration import REMOVED, TrainingConfig, unused_by
from rekd_edge.training.control import WARM, Comparison, begin_from, compare, given_controls, planned_controls
from rekd_edge.training.defaults import Chosen
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

__all__ = ["train", "train_controls"]


def train(
    config: TrainingConfig,
    output: Path,
    resume: bool = False,
    callbacks: Callbacks = lambda stage: [],
    chosen: Chosen | None = None,
) -> dict[str, Any]:
    """Train one run and write its folder: `config.json`, `model.safetensors`, preprocessing, `training.json`,
    `metrics.json` and a model card.

    Controls that the recipe asks for and that are not given are trained first, into folders of the run's.

    Args:
        config: the run's settings.
        output: a new folder; until the run is finished it holds `checkpoints/` alone.
        resume: go on from the last checkpoint in `output`; a finished run is left as it is.
        callbacks: shows the progress of each stage (the controls by their names, then the method).
        chosen: which of the settings were chosen by the data, and why, for the record.

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
        return _train(config, RunFolder(output), resume, callbacks, chosen=chosen)


def train_controls(config: TrainingConfig, output: Path, callbacks: Callbacks = lambda stage: []) -> Comparison | None:
    """Train the controls of a run without the run, or go on with them: others may name the folder as their `control`.

    Returns:
        How they compare; None where all there is is what a warm start begins from.

    Raises:
        InputError, FailureError: as `train`.
    """
    join()
    keep_freed_memory()
    on_first(lambda: check_place(output))
    with ExitStack() as held:
        on_first(lambda: held.enter_context(locked(output)))
        return compare(_provide_controls(prepare(config), RunFolder(output), callbacks))


def _train(
    config: TrainingConfig,
    run: RunFolder,
    resume: bool,
    callbacks: Callbacks,
    start: RunFolder | None = None,
    chosen: Chosen | None = None,
) -> dict[str, Any]:
    """As `train`, with the output locked; `start` is a control whose weights the predictor begins with."""
    recipe, defaults = _as_json(config), REMOVED | _as_json(TrainingConfig())
    unused = unused_by(config.method, bool(config.teacher))

    counting = {key: value for key, value in (REMOVED | recipe).items() if key not in unused}
    if (finished := on_first(lambda: reopen(run, counting, defaults, resume))) is not None:
        return finished

    prepared = prepare(config)
    given = given_controls(prepared)
    sources = _sources(prepared, [*given.values(), *([] if start is None else [start])])
    made = on_first(lambda: begin(run, recipe, sources))

    try:
        return _train_stages(prepared, given, start, sources, run, callbacks, chosen)
    except BaseException:
        if is_first():
            withdraw(run, made)
        raise


def _train_stages(
    prepared: Prepared,
    given: dict[str, RunFolder],
    start: RunFolder | None,
    sources: dict[str, Any],
    run: RunFolder,
    callbacks: Callbacks,
    chosen: Chosen | None,
) -> dict[str, Any]:
    """The stages after `prepare`, in a folder that is begun."""
    controls = given or _provide_controls(prepared, run, callbacks)
    comparison = compare(controls)

    if start is not None or WARM in controls:
        begin_from(prepared.model, start or controls[WARM])

    started = time.perf_counter()
    fitted = fit(prepared, run, callbacks)
    settled = settle(fitted, run, callbacks)
    calibrated = calibrate(fitted)

    calibrated.metrics["majority_accuracy"] = most_frequent(prepared.data.split("validation").labels)
    if comparison is not None:
        calibrated.metrics["random_mask_accuracy"] = comparison.accuracy

    record = _record(prepared, comparison, fitted, settled, time.perf_counter() - started)
    record["teacher_sha256"] = sources["teacher"]
    if chosen is not None:
        record["chosen"] = asdict(chosen)
    on_first(lambda: _write(run, prepared, calibrated, record))

    return calibrated.metrics


def _provide_controls(prepared: Prepared, run: RunFolder, callbacks: Callbacks) -> dict[str, RunFolder]:
    """Train the controls of a run into its folder, or go on with them; by their names."""
    controls: dict[str, RunFolder] = {}
    for control in planned_controls(prepared):
        folder = run.control(control.name)
        if folder.path.is_symlink():
            raise InputError(f"{folder.path} is a link, which is not followed; remove it.")

        start = None if control.start is None else controls[control.start]
        _train(control.config, folder, True, partial(_named, callbacks, control.name), start)
        controls[control.name] = folder

    return controls


def _named(callbacks: Callbacks, name: str, stage: str) -> list[TrainerCallback]:
    """The callbacks of a control's one stage, under the control's name."""
    return callbacks(name)


def _as_json(config: TrainingConfig) -> dict[str, Any]:
    return json.loads(json.dumps(config.to_dict()))


def _sources(prepared: Prepared, controls: list[RunFolder]) -> dict[str, Any]:
    """What a run is made of besides its settings, and how many processes share it: all that a resumed one needs again.

    Raises:
        InputError: a teacher or a control lacks its weights.
    """
    teachers = [teacher.folder for teacher in prepared.teachers]
    digests = source_digests(teachers, [control.path for control in controls])
    return {"data": prepared.data.fingerprint, **digests, "number of processes": world()}


def _record(
    prepared: Prepared, comparison: Comparison | None, fitted: Fitted, settled: Settled | None, seconds: float
) -> dict[str, Any]:
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
        "control": None if comparison is None else asdict(comparison),
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
        run_card(calibrated.model.config, record, calibrated.metrics).save(RunFolder(folder).card_file)

    finish(run, save, record, calibrated.metrics)

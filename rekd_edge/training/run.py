"""`rekd-edge train`: from settings to a finished run folder, resumable until then."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerState, set_seed
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer import TRAINER_STATE_NAME

from rekd_edge.data import DataSource, load_data
from rekd_edge.data.features import TextFeatures
from rekd_edge.errors import FailureError, InputError
from rekd_edge.files import check_place, read_json, sha256_of, write_json
from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.modeling.model import MODEL_FILE
from rekd_edge.runtime.text import load_tokenizer
from rekd_edge.training.allocator import keep_freed_memory
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.objectives import PREDICTOR, Context
from rekd_edge.training.preparation import (
    Preprocessing,
    build_model,
    model_config,
    prepare_preprocessing,
)
from rekd_edge.training.processes import join, on_first, world
from rekd_edge.training.targets import read_targets, store_targets, targets_key
from rekd_edge.training.teacher import Teacher, TeacherFacts, Teachers, check_teacher, read_teachers, reading_of
from rekd_edge.training.trainer import RationaleTrainer, autocast_of, uses_bf16
from rekd_edge.versions import versions

__all__ = ["run_hashes", "train"]

CHECKPOINTS = "checkpoints"
CONTROL = "control"
RECIPE_FILE, SOURCES_FILE = "recipe.json", "sources.json"
TARGETS = "teacher-targets"
"""Folder beside the runs for what teachers say of training data; whatever in it is missing is computed anew."""
Callbacks = Callable[[str], list[TrainerCallback]]
"""From a stage's name to the callbacks that show its progress."""


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
        InputError: bad settings, data, backbone, teacher or output folder; nothing is written then.
        FailureError: training ended with weights that are not finite.
    """
    join()
    keep_freed_memory()
    recipe = json.loads(json.dumps(config.to_dict()))
    if (finished := on_first(lambda: _check_output(output, resume, recipe))) is not None:
        return finished
    if config.batch_size % world():
        raise InputError(f"batch_size={config.batch_size} cannot be shared by {world()} processes; take a multiple.")
    if not config.spec or not config.backbone:
        raise InputError("A run needs data and a backbone; give --data and --backbone, or a recipe that names them.")
    teachers = read_teachers(config.teacher, config.allow_weak_teacher, config.method)
    data = load_data(config.spec, config.data)
    config = config.resolved(data.task)
    preprocessing = prepare_preprocessing(config, data, teachers)
    facts = model_config(config, data, preprocessing)
    for teacher in teachers:
        check_teacher(teacher, facts, preprocessing.tokenizer, config.teacher_mask)
    _check_reporting(config.report_to)
    if (prepare := getattr(method_of(config.method).training(), "prepare", None)) is not None:
        config = prepare(config, data, preprocessing)

    set_seed(config.seed)
    model = build_model(config, facts, preprocessing.tokenizer)
    control_folder = _given_control(config, facts, data, preprocessing)
    checkpoints = output / CHECKPOINTS
    sources = _sources(data, teachers, control_folder)
    on_first(lambda: _begin(checkpoints, recipe, sources))

    control_metrics: dict[str, Any] = {}
    if facts.selects and config.control == "train":
        control_folder = output / CONTROL
        train(_control_run(config, facts), control_folder, control_folder.exists(), callbacks)
    if control_folder is not None:
        control_metrics = read_json(control_folder / "metrics.json")
        if config.warm_start:
            _start_from(model, control_folder)
    started = time.perf_counter()
    trainer = _trainer(config, model, data, preprocessing, teachers, checkpoints, callbacks)
    _fit(trainer, checkpoints)
    settled = _settle_predictor(trainer, checkpoints / PREDICTOR, callbacks) if config.predictor_epochs else None
    broken = next((name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()), None)
    if broken is not None:
        raise FailureError(f"Training diverged: {broken} is not finite; lower learning_rate and train again.")
    # the best epoch's weights are back; calibrate on them
    metrics = {**trainer.dev_metrics(), "n": len(data.split("validation"))}
    if not math.isfinite(metrics["loss"]):
        raise FailureError("Training diverged: the dev loss is not finite; lower learning_rate and train again.")
    if control_metrics:
        metrics["random_mask_accuracy"] = control_metrics["accuracy"]
    record = {
        "recipe": {**config.to_dict()},
        "data": {
            "spec": config.spec,
            "fingerprint": data.fingerprint,
            "examples": {name: len(split) for name, split in data.splits.items()},
        },
        "seed": config.seed,
        "epochs": [entry for entry in trainer.state.log_history if "eval_loss" in entry],
        "steps": trainer.state.global_step,
        "predictor": settled,
        "seconds": round(time.perf_counter() - started, 1),
        "device": str(trainer.args.device),
        "processes": world(),
        "threads": torch.get_num_threads(),
        "versions": versions("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy"),
    }
    on_first(lambda: _finish(output, model, preprocessing, record, metrics))
    return metrics


def _check_output(output: Path, resume: bool, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """Refuse a taken folder; return the metrics of a run that is finished already."""
    check_place(output)
    if not output.is_dir() or not any(output.iterdir()):
        return None
    if not resume:
        raise InputError(f"{output} is not empty; give --output a new folder, or --resume to go on with this run.")
    if (output / "metrics.json").is_file():
        saved = read_json(output / "training.json")["asked"]
    elif (output / CHECKPOINTS / RECIPE_FILE).is_file():
        saved = read_json(output / CHECKPOINTS / RECIPE_FILE)
    elif {path.name for path in output.iterdir()} == {CHECKPOINTS}:
        return None  # killed before anything was written
    else:
        raise InputError(f"{output} holds no run to resume; give --output a new folder.")
    own = TrainingConfig().to_dict()
    saved = {**own, **saved, "data": {**own["data"], **saved["data"]}}  # settings that came later
    changed = sorted(key for key in recipe if recipe[key] != saved.get(key))
    if changed:
        raise InputError(
            f"{output} was started with other settings ({', '.join(changed)}); resume with the same, or give --output "
            "a new folder."
        )
    for left in output.glob(".finish.*"):
        shutil.rmtree(left)
    if (output / "metrics.json").is_file():
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
        return read_json(output / "metrics.json")
    return None


def _sources(data: DataSource, teachers: list[TeacherFacts], control: Path | None) -> dict[str, Any]:
    """What a run is made of besides its settings, and how many processes share it: all that a resumed one needs again.

    Raises:
        InputError: the data lacks a split to train on or to choose by, or a run its weights.
    """
    for split in ("train", "validation"):
        data.split(split)
    runs = run_hashes([teacher.folder for teacher in teachers], control)
    return {"data": data.fingerprint, **runs, "number of processes": world()}


def run_hashes(teachers: list[Path], control: Path | None) -> dict[str, list[str]]:
    """By what a run knows its `teacher` and its `control` again.

    Raises:
        InputError: a file of theirs cannot be read.
    """

    def hashes(folder: Path) -> list[str]:
        try:
            return [sha256_of(folder / file) for file in ("config.json", MODEL_FILE)]
        except OSError as error:
            raise InputError(f"{error.filename} cannot be read; restore it or train that run again.") from error

    runs = {"teacher": teachers, "control": [] if control is None else [control]}
    return {name: [each for folder in folders for each in hashes(folder)] for name, folders in runs.items()}


def _begin(checkpoints: Path, recipe: dict[str, Any], sources: dict[str, Any]) -> None:
    checkpoints.mkdir(parents=True, exist_ok=True)
    if not (checkpoints / RECIPE_FILE).is_file():
        write_json(checkpoints / RECIPE_FILE, recipe)
    if (checkpoints / SOURCES_FILE).is_file():
        saved = read_json(checkpoints / SOURCES_FILE)
        changed = [name for name, source in sources.items() if saved.get(name) != source]
        if changed:
            raise InputError(
                f"The {' and the '.join(changed)} of {checkpoints.parent} changed since it was started; resume with "
                "what it had, or give --output a new folder."
            )
    write_json(checkpoints / SOURCES_FILE, sources)


def _check_reporting(name: str) -> None:
    """Trainer itself would refuse an unknown integration only after the control was trained."""
    available = ("none", "all", *get_available_reporting_integrations())
    if name not in available:
        raise InputError(f"report_to cannot be {name!r} here; install that package, or choose {', '.join(available)}.")


def _control_run(config: TrainingConfig, facts: RationaleConfig) -> TrainingConfig:
    """The recipe of a run's random-mask control: the same in all that a control has."""
    return config.with_method(
        "control",
        layers=facts.predictor["num_hidden_layers"],
        teacher=None,
        target_ratio=facts.target_ratio,
        class_ratios=None,
        control=None,
        warm_start=False,
        epochs=config.control_epochs or config.epochs,
        control_epochs=None,
        predictor_epochs=0,
        share_embeddings=False,
        early_stopping=None,
    )


def _given_control(
    config: TrainingConfig, facts: RationaleConfig, data: DataSource, preprocessing: Preprocessing
) -> Path | None:
    """The folder of a control trained before, where the settings name one (itself, or a run that holds it).

    Raises:
        InputError: it is not a control, or one of another predictor, ratio, data or tokenizer.
    """
    if not facts.selects or config.control in (None, "train"):
        return None
    folder = Path(config.control)
    folder = folder / CONTROL if (folder / CONTROL).is_dir() else folder
    control, wanted = RationaleConfig.load(folder), replace(facts, method="control")
    same = ("method", "task", "labels", "predictor", "mask_mode", "pooling", "target_ratio", "max_length", "image")
    differing = [name for name in same if not _agree(getattr(control, name), getattr(wanted, name))]
    if differing:
        raise InputError(f"{folder} is no control of this run: {', '.join(differing)} differ; set control=train.")
    if not (folder / "metrics.json").is_file():
        raise InputError(f"The control {folder} has no metrics.json; finish its training with --resume.")
    if read_json(folder / "training.json")["data"]["fingerprint"] != data.fingerprint:
        raise InputError(f"The control {folder} was trained on other data; set control=train.")
    if preprocessing.tokenizer is not None and facts.max_length is not None:
        theirs = load_tokenizer(folder / "tokenizer.json", facts.max_length)
        if reading_of(theirs) != reading_of(preprocessing.tokenizer):
            raise InputError(f"The control {folder} has another tokenizer than this run; train both on the same data.")
    return folder


def _start_from(model: RationaleModel, control_folder: Path) -> None:
    """Warm start: predictor and the generator's encoder begin as the control's predictor."""
    control = RationaleModel.from_pretrained(control_folder)
    model.predictor.load_state_dict(control.predictor.state_dict())
    if model.generator is None:
        return
    source = control.predictor.encoder.state_dict()
    wanted = model.generator.encoder.state_dict()
    # a shallower generator takes the first layers; a deeper one keeps the backbone's beyond the control's
    model.generator.encoder.load_state_dict({name: source.get(name, weight) for name, weight in wanted.items()})


def _trainer(
    config: TrainingConfig,
    model: RationaleModel,
    data: DataSource,
    preprocessing: Preprocessing,
    teachers: list[TeacherFacts],
    checkpoints: Path,
    callbacks: Callbacks,
) -> RationaleTrainer:
    _freeze(model, config.freeze_embeddings)
    train_features = preprocessing.features(data.split("train"), augment=config.data.augment)
    dev_features = preprocessing.features(data.split("validation"))
    collate = preprocessing.collator(pad_to_max_length=config.count_all_positions)
    loaded = None
    if teachers:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        calibrated = config.teacher_margins == "calibrated"

        def load() -> Teachers:
            return Teachers([Teacher(teacher, device, model.config.image, calibrated) for teacher in teachers])

        if config.teacher_mask == "student" or config.data.augment:
            loaded = load()
        if not config.data.augment:
            read = [calibrated, uses_bf16(config), model.config.max_length, model.config.image]
            key = targets_key(teachers, data.fingerprint, *read, config.count_all_positions, device.type)
            lengths = None
            if isinstance(train_features, TextFeatures) and not config.count_all_positions:
                lengths = train_features.lengths
            store = checkpoints.parent.parent / TARGETS / key
            precision = autocast_of(config, device)

            def compute() -> None:
                store_targets(store, load, train_features, collate, lengths, device, precision)

            on_first(compute)
            train_features.targets = read_targets(store)
    return RationaleTrainer(
        model,
        Context(
            config,
            data.task,
            tuple(data.label_names),
            preprocessing.max_length,
            None if preprocessing.image is None else preprocessing.image.grid,
            loaded,
        ),
        checkpoints,
        train_features,
        dev_features,
        collate,
        callbacks(config.method),
    )


def _freeze(model: RationaleModel, which: str) -> None:
    frozen = {"none": (), "generator": ("generator",), "all": ("generator", "predictor")}[which]
    for name in frozen:
        tower = getattr(model, name)
        if tower is not None:
            tower.encoder.embedding.requires_grad_(False)


def _fit(trainer: RationaleTrainer, checkpoints: Path) -> None:
    """Train, from the last whole checkpoint where there is one."""
    last = on_first(lambda: _last_checkpoint(checkpoints))
    if last is not None:
        on_first(lambda: _keep_best_here(Path(last)))
    if last is not None and _had_stopped(Path(last), trainer.context.config.early_stopping):
        trainer.state = TrainerState.load_from_json(str(Path(last) / TRAINER_STATE_NAME))
        trainer._load_best_model()
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="mtime may not be reliable")  # checkpoints are numbered
        trainer.train(resume_from_checkpoint=last)


def _last_checkpoint(checkpoints: Path) -> str | None:
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [path for path in found if _is_whole(path)]
    return str(whole[-1]) if whole else None


def _keep_best_here(checkpoint: Path) -> None:
    """Trainer knows its best checkpoint by a path, which another working directory or a moved run makes wrong."""
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


def _is_whole(checkpoint: Path) -> bool:
    """Trainer writes the random states of all processes and its own state last."""
    try:
        read_json(checkpoint / TRAINER_STATE_NAME)
    except InputError:
        return False
    return len(list(checkpoint.glob("rng_state*.pth"))) >= world()


def _had_stopped(checkpoint: Path, patience: int | None) -> bool:
    """Whether training ended early here, and only what follows was cut off."""
    entries = read_json(checkpoint / TRAINER_STATE_NAME)["log_history"]
    dev = [entry["eval_loss"] for entry in entries if "eval_loss" in entry]
    return patience is not None and bool(dev) and len(dev) - 1 - dev.index(min(dev)) >= patience


def _settle_predictor(trainer: RationaleTrainer, checkpoints: Path, callbacks: Callbacks) -> dict[str, Any] | None:
    """Go on with the predictor alone, on deterministic masks; go back where that does not lower the dev loss.

    Returns:
        The dev loss `before` and `after`, and whether the new weights were `kept`; None where nothing selects.
    """
    model, config = trainer.rationale_model, trainer.context.config
    if model.generator is None:
        return None
    before = trainer.dev_metrics()["loss"]
    weights = {name: weight.clone() for name, weight in model.predictor.state_dict().items()}
    model.generator.requires_grad_(False)
    model.generator.encoder.embedding.requires_grad_(False)  # it may be the predictor's too
    only = replace(config, epochs=config.predictor_epochs, early_stopping=None)
    stage = RationaleTrainer(
        model,
        replace(trainer.context, config=only, objective=PREDICTOR),
        checkpoints,
        cast(Dataset, trainer.train_dataset),
        cast(Dataset, trainer.eval_dataset),
        trainer.data_collator,
        callbacks(PREDICTOR),
    )
    _fit(stage, checkpoints)
    after = stage.dev_metrics()["loss"]
    if not (kept := after < before):
        model.predictor.load_state_dict(weights)
    return {"before": before, "after": after, "kept": kept}


def _finish(
    output: Path, model: RationaleModel, preprocessing: Preprocessing, record: dict[str, Any], metrics: dict[str, Any]
) -> None:
    """Write every file beside its place, then move all in, `metrics.json` last: it marks a finished run."""
    asked = read_json(output / CHECKPOINTS / RECIPE_FILE)
    staging = Path(tempfile.mkdtemp(prefix=".finish.", dir=output))
    try:
        model.cpu().save_pretrained(staging)
        preprocessing.save(staging)
        write_json(staging / "training.json", {**record, "asked": asked})
        write_json(staging / "metrics.json", metrics)
        names = sorted((path.name for path in staging.iterdir()), key=lambda name: name == "metrics.json")
        for name in names:
            os.replace(staging / name, output / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)


def _agree(one: Any, other: Any) -> bool:
    """Equal as JSON; of two configurations, in what every version of transformers writes."""
    one, other = json.loads(json.dumps([one, other]))
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one == other
    volatile = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"}
    return all(one[key] == other[key] for key in (one.keys() & other.keys()) - volatile)

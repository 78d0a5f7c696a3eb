"""The stages of a training run around its control, each handing a dataclass to the next:

prepare     settings, data, teachers and a model with its first weights; nothing is written
fit         the method's objective, from the last checkpoint where there is one
settle      the predictor alone, on the masks that the generator ended with
calibrate   round the embeddings where an int8 bundle shall share them, then the margin bias and the figures on dev data
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback, set_seed
from transformers.integrations import get_available_reporting_integrations

from rekd_edge.data import DataSource, ImageFeatures, TextFeatures, load_data
from rekd_edge.errors import FailureError, InputError
from rekd_edge.files import real_folder
from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.rounding import round_embeddings
from rekd_edge.runs import RunFolder
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.objectives import PREDICTOR, Context
from rekd_edge.training.preparation import Preprocessing, build_model, model_config, prepare_preprocessing
from rekd_edge.training.processes import on_first, world
from rekd_edge.training.targets import read_targets, store_targets, targets_key
from rekd_edge.training.teacher import Teacher, TeacherFacts, Teachers, check_teacher, read_teachers
from rekd_edge.training.trainer import RationaleTrainer, autocast_of, uses_bf16

__all__ = ["Calibrated", "Callbacks", "Fitted", "Prepared", "Settled", "calibrate", "fit", "prepare", "settle"]

Callbacks = Callable[[str], list[TrainerCallback]]
"""From a stage's name to the callbacks that show its progress."""


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs, checked."""

    config: TrainingConfig
    """Resolved: no value is left open."""
    data: DataSource
    preprocessing: Preprocessing
    teachers: list[TeacherFacts]
    model: RationaleModel


@dataclass(frozen=True)
class Fitted:
    """A model trained by its method's objective; `trainer` holds it with the weights of its best epoch."""

    trainer: RationaleTrainer

    @property
    def model(self) -> RationaleModel:
        """The trained model."""
        return self.trainer.rationale_model


@dataclass(frozen=True)
class Settled:
    """What training the predictor alone did to the dev figure that selects the epoch (`select_by`)."""

    before: float
    after: float
    kept: bool
    """Whether the new weights were kept, because they improve it."""


@dataclass(frozen=True)
class Calibrated:
    """A model that is ready to be written, and its figures on dev data."""

    model: RationaleModel
    metrics: dict[str, Any]


def prepare(config: TrainingConfig) -> Prepared:
    """Check the settings, load data and preprocessing, read the teachers, and build the model with its first weights.

    Raises:
        InputError: settings, data, backbone or teachers cannot be used, or do not fit each other.
    """
    if config.batch_size % world():
        raise InputError(f"batch_size={config.batch_size} cannot be shared by {world()} processes; take a multiple.")
    if not config.spec or not config.backbone:
        raise InputError("A run needs data and a backbone; give --data and --backbone, or a recipe that names them.")

    _check_reporting(config.report_to)
    teachers = read_teachers(config.teacher, config.allow_weak_teacher, config.method)
    data = load_data(config.spec, config.data)

    for split in ("train", "validation"):
        data.split(split)

    config = config.resolved(data.task)
    preprocessing = prepare_preprocessing(config, data, teachers)
    facts = model_config(config, data, preprocessing)

    for teacher in teachers:
        check_teacher(teacher, facts, preprocessing.tokenizer, config.teacher_mask)

    if (adapt := getattr(method_of(config.method).training(), "prepare", None)) is not None:
        config = adapt(config, data, preprocessing)

    set_seed(config.seed)
    model = build_model(config, facts, preprocessing.tokenizer)
    return Prepared(config, data, preprocessing, teachers, model)


def _check_reporting(name: str) -> None:
    """Trainer itself would refuse an unknown integration only after the control was trained."""
    available = ("none", "all", *get_available_reporting_integrations())
    if name not in available:
        raise InputError(f"report_to cannot be {name!r} here; install that package, or choose {', '.join(available)}.")


def fit(prepared: Prepared, run: RunFolder, callbacks: Callbacks) -> Fitted:
    """Train the model by its method's objective.

    Args:
        prepared: of `prepare`, warm-started where that was asked for.
        run: the run's folder, begun; checkpoints go there.
        callbacks: show the progress.
    """
    config, data, preprocessing = prepared.config, prepared.data, prepared.preprocessing
    freeze_embeddings(prepared.model, config.freeze_embeddings)
    train_features = preprocessing.features(data.split("train"), augment=config.data.augment)
    dev_features = preprocessing.features(data.split("validation"))
    asked = _teach(prepared, run, train_features)

    image = preprocessing.image
    grid = None if image is None else image.grid
    context = Context(config, data.task, tuple(data.label_names), preprocessing.max_length, grid, asked)
    trainer = RationaleTrainer(
        prepared.model,
        context,
        run.checkpoints,
        train_features,
        dev_features,
        preprocessing.collator(pad_to_max_length=config.count_all_positions),
        callbacks(config.method),
    )
    trainer.fit()

    return Fitted(trainer)


def freeze_embeddings(model: RationaleModel, which: str) -> None:
    """Keep the embeddings of `none`, the `generator` or `all` towers as they are."""
    frozen = {"none": (), "generator": ("generator",), "all": ("generator", "predictor")}[which]
    for name in frozen:
        tower = getattr(model, name)
        if tower is not None:
            tower.encoder.embedding.requires_grad_(False)


def _teach(prepared: Prepared, run: RunFolder, features: TextFeatures | ImageFeatures) -> Teachers | None:
    """Give the training split its teachers' targets, computed once where every epoch sees the same inputs.

    Returns:
        Teachers to ask in every step: where inputs are augmented, or the mask to decide from is the student's.
    """
    config = prepared.config
    if not prepared.teachers:
        return None

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    image, calibrated = prepared.model.config.image, config.teacher_margins == "calibrated"

    def load() -> Teachers:
        return Teachers([Teacher(teacher, device, image, calibrated) for teacher in prepared.teachers])

    asked = load() if config.teacher_mask == "student" or config.data.augment else None

    if config.data.augment:
        return asked

    every = config.count_all_positions
    reading = [calibrated, uses_bf16(config), prepared.model.config.max_length, image, every, device.type]
    store = run.targets / targets_key(prepared.teachers, prepared.data.fingerprint, *reading)
    lengths = features.lengths if isinstance(features, TextFeatures) and not every else None
    collate = prepared.preprocessing.collator(pad_to_max_length=every)
    precision = autocast_of(config, device)
    on_first(lambda: store_targets(store, load, features, collate, lengths, device, precision))
    features.targets = read_targets(store)

    return asked


def settle(fitted: Fitted, run: RunFolder, callbacks: Callbacks) -> Settled | None:
    """Train the predictor alone on deterministic masks, and go back where that does not improve the dev figure.

    Returns:
        None where it was not asked for, or nothing selects.
    """
    trainer, model = fitted.trainer, fitted.model
    config = trainer.context.config
    if not config.predictor_epochs or model.generator is None:
        return None

    before = trainer.dev_metrics()[config.select_by]
    weights = {name: weight.clone() for name, weight in model.predictor.state_dict().items()}

    model.generator.requires_grad_(False)
    model.generator.encoder.embedding.requires_grad_(False)  # it may be the predictor's too
    only = replace(config, epochs=config.predictor_epochs, early_stopping=None, dev_masks="deterministic")
    checkpoints = run.checkpoints / PREDICTOR
    on_first(lambda: real_folder(checkpoints))
    alone = RationaleTrainer(
        model,
        replace(trainer.context, config=only, objective=PREDICTOR),
        checkpoints,
        cast(Dataset, trainer.train_dataset),
        cast(Dataset, trainer.eval_dataset),
        trainer.data_collator,
        callbacks(PREDICTOR),
    )
    alone.fit()

    after = alone.dev_metrics()[config.select_by]
    if not (kept := after > before if config.select_by == "accuracy" else after < before):
        model.predictor.load_state_dict(weights)

    return Settled(before, after, kept)


def calibrate(fitted: Fitted) -> Calibrated:
    """Calibrate the margin bias on dev data and measure there, with the weights of the best epoch.

    Raises:
        FailureError: training ended with weights or a dev loss that are not finite.
    """
    trainer, model = fitted.trainer, fitted.model
    if bits := trainer.context.config.round_embeddings:
        round_embeddings(model, 8 if bits is True else bits)

    broken = next((name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()), None)
    if broken is not None:
        raise FailureError(f"Training diverged: {broken} is not finite; lower learning_rate and train again.")

    metrics = {**trainer.dev_metrics(), "n": len(cast(Any, trainer.eval_dataset))}
    if not math.isfinite(metrics["loss"]):
        raise FailureError("Training diverged: the dev loss is not finite; lower learning_rate and train again.")

    return Calibrated(model, metrics)

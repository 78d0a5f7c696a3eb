"""Settings that learn from the data at hand: the one rule behind `train` without a recipe and `build`.

The defaults of `TrainingConfig` are the paper's, which take tens of epochs over tens of thousands of rows. Here the
number of steps is chosen first, and epochs follow from the rows; the other values are those of the small recipes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rekd_edge.data import DataSource, Examples, load_data
from rekd_edge.methods import method_of
from rekd_edge.runs import RunFolder
from rekd_edge.training.configuration import TrainingConfig, unused_by

__all__ = ["BATCH", "Chosen", "Profile", "choose", "learning_settings", "profile_of", "tokens_of", "words_of"]

BATCH = 32
STEPS = {True: 300, False: 600}
"""Steps of the run itself, after a warm start, with a pretrained backbone and with random weights."""
FEWEST_EPOCHS, MOST_EPOCHS = 2, 15
"""Rows that are seen more often are learnt by heart."""
LONG_EPOCH = 1000
"""Steps of an epoch of which one is enough."""
PIECES_PER_WORD = 1.3
SHORTEST, LONGEST = 32, 256
RATIO = {"text": 0.10, "image": 0.15}
IMAGE_SIZE = 96
SAMPLED = 5000
"""Texts whose length is measured, at most."""
SHARED = ("data.max_length", "data.image_size", "target_ratio", "initial_ratio", "mask_mode", "pooling")
"""What a student takes from its teacher's run."""


CHOSEN = frozenset(
    [
        "target_ratio",
        "initial_ratio",
        "batch_size",
        "learning_rate",
        "head_learning_rate",
        "adam_beta2",
        "lr_scheduler",
        "warmup_ratio",
        "temperature_refresh",
        "warm_start",
        "comparison_control",
        "predictor_epochs",
        "control_epochs",
        "epochs",
        "mask_mode",
        "pooling",
        "head_dropout",
        "freeze_embeddings",
        "kd_temperature",
        "generator",
        "data.max_length",
        "data.image_size",
    ]
)
"""All that may be chosen."""


@dataclass(frozen=True)
class Profile:
    """What the choice depends on."""

    task: str
    rows: int
    """Training examples."""
    labels: int
    words: int | None
    """Nine in ten texts have at most so many words."""
    pretrained: bool = True


@dataclass(frozen=True)
class Chosen:
    """Settings as `--set` takes them, and why."""

    settings: dict[str, Any]
    why: tuple[str, ...]


def profile_of(data: DataSource, backbone: str) -> Profile:
    """Look at the training split."""
    train = data.split("train")
    words = words_of(train)[1] if data.task == "text" else None
    return Profile(data.task, len(train), len(data.label_names), words, "random:" not in backbone)


def words_of(examples: Examples) -> tuple[int, int]:
    """Median and ninetieth percentile of the texts' words."""
    step = max(1, len(examples) // SAMPLED)
    lengths = [len(str(examples.inputs[i]).split()) for i in range(0, len(examples), step)]
    return int(np.median(lengths)), int(np.percentile(lengths, 90))


def tokens_of(words: int) -> int:
    """Tokens that so many words fit into, in steps of 16."""
    return int(np.clip(16 * math.ceil((words * PIECES_PER_WORD + 2) / 16), SHORTEST, LONGEST))


def learning_settings(profile: Profile, steps: int | None = None, family: bool = False) -> Chosen:
    """Settings of a run of `re` or `rekd`.

    Args:
        profile: of the data.
        steps: how many are wanted; by the backbone if not given.
        family: the backbone is a small net of another family, which zeroes what is not selected.
    """
    wanted = steps or STEPS[profile.pretrained]
    an_epoch = max(1, math.ceil(profile.rows / BATCH))
    fewest = 1 if an_epoch > LONG_EPOCH else FEWEST_EPOCHS
    epochs = min(max(round(wanted / an_epoch), fewest), MOST_EPOCHS)
    ratio, new = RATIO[profile.task], family or not profile.pretrained

    settings: dict[str, Any] = {
        "target_ratio": ratio,
        "initial_ratio": ratio,
        "batch_size": BATCH,
        "learning_rate": 1e-3 if new else 3e-4,
        "head_learning_rate": 3e-3 if profile.task == "image" else 1e-3,
        "adam_beta2": 0.95,
        "lr_scheduler": "linear",
        "warmup_ratio": 0.1,
        "temperature_refresh": 10,
        "warm_start": True,
        "comparison_control": "descent",
        "predictor_epochs": 1,
        "control_epochs": max(1, epochs // 2),
        "epochs": epochs,
    }
    why = [
        f"{epochs} epochs of {an_epoch} steps, {epochs * an_epoch:,} in all: {wanted} are aimed at, within {fewest} to "
        f"{MOST_EPOCHS} epochs",
        f"learning rates of {settings['learning_rate']:g} for the {'new' if new else 'pretrained'} body and "
        f"{settings['head_learning_rate']:g} for the heads",
        "a warm start from a control, because a generator cannot learn from a predictor that knows nothing yet",
    ]

    if not family:
        settings["mask_mode"] = "drop"
    if profile.task == "text":
        settings |= {"pooling": "mean", "head_dropout": 0.1}
        if not new:
            settings["freeze_embeddings"] = "all"
            why.append("word embeddings stay as they were pretrained: most words are too rare here to improve")
    else:
        settings["kd_temperature"] = 1.0

    return Chosen(settings, tuple(why))


def choose(config: TrainingConfig, output: Path | None = None) -> tuple[TrainingConfig, Chosen]:
    """Fill in what nobody asked for by what the data is.

    Args:
        config: settings with `asked`, the keys that somebody gave; they win.
        output: a run to go on with, whose own choice stays.

    Returns:
        The settings, and what was chosen and why.

    Raises:
        InputError: the data, a teacher or a control cannot be read.
    """
    given = set(config.asked)
    if output is not None and (saved := _recipe_of(output)) is not None:
        taken = {key: value for key, value in _flat(saved).items() if key in CHOSEN and key not in given}
        return _with(config, taken), Chosen(taken, ("as the run was begun",))

    data = load_data(config.spec, config.data)
    profile = profile_of(data, config.backbone)
    chosen = learning_settings(profile, family=":" in config.backbone.replace("random:", ""))
    settings, why = dict(chosen.settings), list(chosen.why)

    if profile.words is not None:
        settings["data.max_length"] = tokens_of(profile.words)
        why.append(f"texts of {settings['data.max_length']} tokens: nine in ten have at most {profile.words:,} words")
    else:
        settings["data.image_size"] = _image_size(config.backbone)
        why.append(f"images of {settings['data.image_size']} pixels")

    method = method_of(config.method)
    if not method.selects:
        settings["epochs"] *= 2
        why.append("twice the epochs, since there is no warm start")
    if method.needs_teacher and settings.get("mask_mode") == "drop" and "generator_layers" not in given:
        settings["generator"] = "local"
        why.append("a local generator, which costs next to nothing on the device")

    settings |= _of_others(config, why)
    settings = {key: value for key, value in settings.items() if key not in given}
    settings = _without_conflicts(settings, config)
    return _with(config, settings), Chosen(settings, tuple(why))


def _of_others(config: TrainingConfig, why: list[str]) -> dict[str, Any]:
    """What a run has in common with its teacher, and with the run whose control it shares."""
    settings: dict[str, Any] = {}
    if config.teacher and (recipe := _recipe_of(Path(config.teacher.split(",")[0].strip()))) is not None:
        theirs = _flat(recipe)
        settings |= {key: theirs[key] for key in SHARED if theirs.get(key) is not None}
        why.append("lengths, ratio and masks as its teacher has them")

    if config.control not in (None, "train") and (recipe := _recipe_of(Path(str(config.control)))) is not None:
        theirs = _flat(recipe)
        names = ("warm_start", "comparison_control", "control_epochs", "epochs", "predictor_epochs", *SHARED)
        settings |= {key: theirs[key] for key in names if key in theirs}
        why.append("steps as the run has whose control it shares")

    return settings


def _without_conflicts(settings: dict[str, Any], config: TrainingConfig) -> dict[str, Any]:
    """Leave out what does not go with something that was asked for, or that the method does not read."""
    out = set(unused_by(config.method, bool(config.teacher)))
    if config.control is None:
        out |= {"warm_start", "control_epochs", "comparison_control"}
    if "warm_start" in config.asked and not config.warm_start:
        out.add("control_epochs")
    if method_of(config.method).whole_input:
        out.add("predictor_epochs")  # it has no masks to settle on
    if config.count_all_positions or config.freeze_embeddings == "generator":
        out |= {"mask_mode", "generator"}
    if "target_ratio" in config.asked:
        settings = {**settings, "initial_ratio": config.target_ratio} if "initial_ratio" in settings else settings
    return {key: value for key, value in settings.items() if key not in out}


def _with(config: TrainingConfig, settings: dict[str, Any]) -> TrainingConfig:
    """The same settings with those that were chosen; what was asked for stays known."""
    known = TrainingConfig.fields_by_key()
    own = {known[key]: value for key, value in settings.items() if key in known}
    data = {key.removeprefix("data."): value for key, value in settings.items() if key not in known}
    return replace(config, **own, data=replace(config.data, **data))


def _recipe_of(folder: Path) -> dict[str, Any] | None:
    """The settings that a run was started with; None where there is none."""
    run = RunFolder(folder)
    if run.is_finished:
        return run.read_record().get("asked")  # not there in the records of other tools
    return run.read_recipe() if run.recipe_file.is_file() else None


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """The dotted keys of a saved recipe that any run has."""
    data = {f"data.{name}": value for name, value in recipe["data"].items() if name != "spec"}
    return {key: value for key, value in recipe.items() if key != "data"} | data


def _image_size(backbone: str) -> int:
    from rekd_edge.modeling.encoders.backbones import backbone_config

    return min(IMAGE_SIZE, int(getattr(backbone_config(backbone), "image_size", IMAGE_SIZE)))

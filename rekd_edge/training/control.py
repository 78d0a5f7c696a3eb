"""The control of a run: the same predictor on random masks, trained first or given by its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.runs import RunFolder
from rekd_edge.runtime.text import load_tokenizer
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.stages import Prepared
from rekd_edge.training.teacher import reading_of

__all__ = ["Control", "control_stage", "given_control"]


@dataclass(frozen=True)
class Control:
    """A finished control and its figures on dev data."""

    run: RunFolder
    metrics: dict[str, Any]


def given_control(prepared: Prepared) -> RunFolder | None:
    """The control that the settings name (itself, or a run that holds it), trained before.

    Raises:
        InputError: it is not a control, or one of another predictor, ratio, data or tokenizer.
    """
    config, model_config = prepared.config, prepared.model.config
    if not model_config.selects or config.control in (None, "train"):
        return None
    run = RunFolder(Path(config.control))
    run = run.control if run.control.path.is_dir() else run
    control, wanted = RationaleConfig.load(run.path), replace(model_config, method="control")

    same = (
        "method",
        "task",
        "labels",
        "predictor",
        "mask_mode",
        "pooling",
        "final_norm",
        "target_ratio",
        "max_length",
        "image",
    )
    differing = [name for name in same if not _agree(getattr(control, name), getattr(wanted, name))]
    if differing:
        raise InputError(f"{run.path} is no control of this run: {', '.join(differing)} differ; set control=train.")
    run.read_metrics("control")
    if run.read_record()["data"]["fingerprint"] != prepared.data.fingerprint:
        raise InputError(f"The control {run.path} was trained on other data; set control=train.")

    tokenizer = prepared.preprocessing.tokenizer
    if tokenizer is not None and model_config.max_length is not None:
        theirs = load_tokenizer(run.tokenizer_file, model_config.max_length)
        if reading_of(theirs) != reading_of(tokenizer):
            raise InputError(
                f"The control {run.path} has another tokenizer than this run; train both on the same data."
            )
    return run


def control_stage(
    prepared: Prepared, given: RunFolder | None, run: RunFolder, train: Callable[[TrainingConfig, RunFolder], Any]
) -> Control | None:
    """Provide the run's control, training it where it is to be trained, and start from it where that was asked for.

    Args:
        prepared: the run that is to be compared; its model is changed by a warm start.
        given: what `given_control` found.
        run: the run's folder, begun; a control that is trained goes into its `control`.
        train: trains the run of some settings into a folder, or resumes it there.

    Returns:
        None where the run has no control.
    """
    config = prepared.config
    if prepared.model.config.selects and config.control == "train":
        given = run.control
        if given.path.is_symlink():
            raise InputError(f"{given.path} is a link, which is not followed; remove it.")
        train(_control_run(config, prepared.model.config), given)
    if given is None:
        return None

    if config.warm_start:
        _start_from(prepared.model, given)
    return Control(given, given.read_metrics("control"))


def _control_run(config: TrainingConfig, model_config: RationaleConfig) -> TrainingConfig:
    """The settings of a run's random-mask control: the same in all that a control has."""
    return config.for_control(
        layers=model_config.predictor["num_hidden_layers"],
        target_ratio=model_config.target_ratio,
        epochs=config.control_epochs or config.epochs,
    )


def _start_from(model: RationaleModel, run: RunFolder) -> None:
    """Warm start: predictor and the generator's encoder begin as the control's predictor."""
    control = RationaleModel.from_pretrained(run.path)
    model.predictor.load_state_dict(control.predictor.state_dict())
    if model.generator is None:
        return

    source = control.predictor.encoder.state_dict()
    wanted = model.generator.encoder.state_dict()
    # a shallower generator takes the first layers; a deeper one keeps the backbone's beyond the control's
    model.generator.encoder.load_state_dict({name: source.get(name, weight) for name, weight in wanted.items()})


def _agree(one: Any, other: Any) -> bool:
    """Equal as JSON; of two configurations, in what every version of transformers writes."""
    one, other = json.loads(json.dumps([one, other]))
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one == other
    volatile = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"}
    return all(one[key] == other[key] for key in (one.keys() & other.keys()) - volatile)

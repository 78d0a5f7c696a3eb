"""The controls of a run: the same predictor on random masks, trained before the run or given by its folder.

    control/            from the backbone, its ratio falling from the whole input: what a warm start begins from
    control-descent/    from there (or from the backbone) for as many epochs as the run has in all, the same way
    control-fixed/      likewise, at the target ratio from the first step

The run is compared with the last two, of which the better one on dev data counts. `controls_of` says what each is; runs
whose controls are alike may share them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.runs import RunFolder
from rekd_edge.runtime.text import load_tokenizer
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.stages import Prepared
from rekd_edge.training.teacher import reading_of

__all__ = [
    "WARM",
    "Comparison",
    "ControlRun",
    "begin_from",
    "compare",
    "controls_of",
    "counting_control",
    "given_controls",
    "planned_controls",
]

WARM = "control"
"""The control that a warm start begins from."""
KINDS = ("descent", "fixed")


@dataclass(frozen=True)
class ControlRun:
    """A predictor of random masks that is trained beside a run."""

    name: str
    """Of its folder."""
    config: TrainingConfig
    start: str | None = None
    """The control whose weights it begins with; None for the backbone."""

    @property
    def kind(self) -> str | None:
        """How it is trained for the comparison; None of the control that a warm start begins from."""
        return None if self.name == WARM else self.config.comparison_control


@dataclass(frozen=True)
class Comparison:
    """What a run is compared with."""

    taken: str
    """The kind that counts: of the highest dev accuracy, of equal ones that of the lower dev loss."""
    dev: dict[str, dict[str, float]]
    """Kind to its `accuracy` and `loss` on dev data."""

    @property
    def name(self) -> str:
        """Of the folder of the control that counts."""
        return f"{WARM}-{self.taken}"

    @property
    def accuracy(self) -> float:
        """Of the control that counts, on dev data."""
        return self.dev[self.taken]["accuracy"]


def controls_of(config: TrainingConfig, **shape: Any) -> list[ControlRun]:
    """The controls of a run that are trained, in the order in which they need each other.

    Args:
        config: the run's settings.
        shape: settings that its model decides: layers of the predictor, target ratio.
    """
    if not method_of(config.method).selects or config.control is None:
        return []

    epochs = config.epochs or method_of(config.method).epochs
    runs = []

    if config.warm_start:
        first = {"epochs": config.control_epochs or epochs, "comparison_control": "none"}
        runs.append(ControlRun(WARM, config.for_control(**first, **shape)))

    kinds = {"both": KINDS, "none": ()}.get(config.comparison_control, (config.comparison_control,))
    for kind in kinds:
        rest = {"epochs": epochs + config.predictor_epochs, "comparison_control": kind}
        start = WARM if config.warm_start else None
        runs.append(ControlRun(f"{WARM}-{kind}", config.for_control(**rest, **shape), start))

    return runs


def planned_controls(prepared: Prepared) -> list[ControlRun]:
    """The controls of a prepared run: of its own model's layers and ratio."""
    facts = prepared.model.config
    return controls_of(prepared.config, layers=facts.predictor["num_hidden_layers"], target_ratio=facts.target_ratio)


def given_controls(prepared: Prepared) -> dict[str, RunFolder]:
    """The controls that the settings name, trained before for a run whose controls are the same; by their names.

    Raises:
        InputError: one is missing, is no control, is one of another predictor, ratio, data or tokenizer, or was trained
            for fewer steps than this run will be.
    """
    path = prepared.config.control
    if path in (None, "train"):
        return {}
    folder = RunFolder(Path(path))
    return {control.name: _checked(prepared, control, folder) for control in planned_controls(prepared)}


def compare(controls: Mapping[str, RunFolder]) -> Comparison | None:
    """Choose the control that counts; None where there is none to be compared with."""
    figures = {name: folder.read_metrics("control") for name, folder in controls.items() if name != WARM}
    dev = {
        name.removeprefix(f"{WARM}-"): {key: metrics[key] for key in ("accuracy", "loss")}
        for name, metrics in figures.items()
    }
    if not dev:
        return None

    return Comparison(max(dev, key=lambda kind: (dev[kind]["accuracy"], -dev[kind]["loss"])), dev)


def counting_control(run: RunFolder) -> RunFolder | None:
    """The control that a finished run was compared with; None where it was not.

    Raises:
        InputError: the run's record is missing or damaged.
    """
    record = run.read_record()
    asked = record["recipe"]["control"]
    if asked is None:
        return None

    holder = run if asked == "train" else RunFolder(Path(asked))
    if "control" not in record:  # by the first release, whose control served for both
        control = _within(holder, WARM)
        return control if control != run and control.is_finished else None

    return None if record["control"] is None else _within(holder, f"{WARM}-{record['control']['taken']}")


def begin_from(model: RationaleModel, run: RunFolder) -> None:
    """Let the predictor, and the encoder of a generator, begin as the predictor of a control."""
    control = RationaleModel.from_pretrained(run.path)
    model.predictor.load_state_dict(control.predictor.state_dict())

    if model.generator is None:
        return

    source = control.predictor.encoder.state_dict()
    wanted = model.generator.encoder.state_dict()
    # a shallower generator takes the first layers; a deeper one keeps the backbone's beyond the control's
    model.generator.encoder.load_state_dict({name: source.get(name, weight) for name, weight in wanted.items()})


def _checked(prepared: Prepared, wanted: ControlRun, holder: RunFolder) -> RunFolder:
    """A given control, held against the one that would be trained."""
    run, ours = _within(holder, wanted.name), replace(prepared.model.config, method="control")
    theirs = RationaleConfig.load(run.path)
    if run == holder and theirs.method != "control":
        raise InputError(
            f"{holder.path} has no {wanted.name}; set control=train, or comparison_control to what it has."
        )

    same = (
        *("method", "task", "labels", "predictor", "mask_mode", "pooling", "final_norm"),
        *("target_ratio", "max_length", "image"),
    )
    differing = [name for name in same if not _agree(getattr(theirs, name), getattr(ours, name))]
    if differing:
        raise InputError(f"{run.path} is no control of this run: {', '.join(differing)} differ; set control=train.")

    run.read_metrics("control")
    record = run.read_record()
    if record["data"]["fingerprint"] != prepared.data.fingerprint:
        raise InputError(f"The control {run.path} was trained on other data; set control=train.")

    if wanted.name != WARM and record["steps"] < (steps := _steps(prepared)):
        raise InputError(
            f"The control {run.path} was trained for {record['steps']} steps, and this run takes {steps}; "
            "set control=train."
        )

    tokenizer = prepared.preprocessing.tokenizer
    if tokenizer is None or ours.max_length is None:
        return run
    if reading_of(load_tokenizer(run.tokenizer_file, ours.max_length)) != reading_of(tokenizer):
        raise InputError(f"The control {run.path} has another tokenizer than this run; train both on the same data.")

    return run


def _within(holder: RunFolder, name: str) -> RunFolder:
    """The control of that name in a run's folder; a folder without it is a control itself."""
    run = holder.control(name)
    return run if run.path.is_dir() else holder


def _steps(prepared: Prepared) -> int:
    """The optimisation steps of a run in all its stages."""
    config = prepared.config
    a_step = config.batch_size * config.gradient_accumulation
    return ((config.epochs or 1) + config.predictor_epochs) * math.ceil(len(prepared.data.split("train")) / a_step)


def _agree(one: Any, other: Any) -> bool:
    """Equal as JSON; of two configurations, in what every version of transformers writes."""
    one, other = json.loads(json.dumps([one, other]))
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one == other
    volatile = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"}
    return all(one[key] == other[key] for key in (one.keys() & other.keys()) - volatile)

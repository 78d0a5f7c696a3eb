"""What each method minimises: one module a method, from a batch to its named loss terms.

A module has `objective(model, batch, moment, context) -> Terms`, and where its method needs them

    Settings      a dataclass, the method's own section of a recipe (`--set plmr.temperature=1`)
    prepare       (config, data, preprocessing) -> config, for settings that are taken from data or backbone
    dev_terms     (predictions, context) -> {name: value}, added to the dev loss that selects the epoch
    has_begun     (epochs, config) -> bool, false in a warm-up, of which no epoch is chosen
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleOutput
from rekd_edge.modeling.constants import constant
from rekd_edge.training import losses
from rekd_edge.training.configuration import TrainingConfig

if TYPE_CHECKING:
    from rekd_edge.training.teacher import Teachers

__all__ = ["PREDICTOR", "Context", "Moment", "Terms", "inputs_of", "objective_of", "ratio_terms", "task_terms"]

PREDICTOR = "predictor"
"""The objective of the stage in which the predictor goes on alone; no method of its own."""

_MODEL_INPUTS = ("input_ids", "attention_mask", "pixel_values")


@dataclass(frozen=True)
class Context:
    """What an objective needs besides model and batch."""

    config: TrainingConfig
    task: str
    labels: tuple[str, ...]
    max_length: int | None = None
    grid: tuple[int, int] | None = None
    """Rows and columns of patches; None for text."""
    teachers: Teachers | None = None
    """Asked in every step; None where there are none, or where the batch holds all that they say."""
    objective: str = ""
    """A method, or `PREDICTOR`; the run's own method by default."""

    def ratios(self, labels: Tensor) -> Tensor:
        """p_target of each example, [batch]."""
        return constant(tuple(self.config.ratios(self.labels)), labels.device)[labels]


class Moment(NamedTuple):
    """Where in its training a model is."""

    temperature: float
    """τ of equation 10."""
    progress: float
    """Share of the optimisation steps taken, 0 to 1."""
    noise: Tensor | None = None
    """What the model draws (`RationaleModel.draw_noise`), of this batch; by itself where None."""
    teacher_noise: Tensor | None = None
    """Noise of the teachers in equation 7, [batch, features, 2]; drawn where None."""


Terms = dict[str, Tensor]
"""`loss`, which is minimised, and what it is made of, for the log."""
Objective = Callable[[nn.Module, dict[str, Tensor], Moment, Context], Terms]


def objective_of(name: str) -> Objective:
    """The objective of a method, or that of the predictor alone."""
    module = import_module(f"{__name__}.{PREDICTOR}") if name == PREDICTOR else method_of(name).training()
    return cast(Objective, module.objective)


def inputs_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a model takes of a batch."""
    return {name: batch[name] for name in _MODEL_INPUTS if name in batch}


def task_terms(logits: Tensor, batch: dict[str, Tensor]) -> Terms:
    """The task loss alone."""
    task = losses.task_loss(logits, batch["labels"])
    return {"loss": task, "task": task}


def ratio_terms(output: RationaleOutput) -> Terms:
    """The share of the features that the sampled mask has, and that the uncalibrated margins would select."""
    with torch.no_grad():
        feature = output.selection.feature
        share = feature.sum(dim=-1).clamp(min=1)
        return {
            "sampled_ratio": ((output.mask * feature).sum(dim=-1) / share).mean(),
            "argmax_ratio": (((output.margin > 0) & feature).sum(dim=-1) / share).mean(),
        }

"""What each method minimises: one function a method, from a batch to its named loss terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rekd_edge.modeling import RationaleOutput
from rekd_edge.modeling.selection import gumbel_log_softmax, gumbel_noise
from rekd_edge.training import losses
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.teacher import Teacher

__all__ = ["OBJECTIVES", "Context", "Moment", "selection_term"]


@dataclass(frozen=True)
class Context:
    """What an objective needs besides model and batch."""

    config: TrainingConfig
    task: str
    max_length: int | None
    teacher: Teacher | None = None
    objective: str = ""
    """Of `OBJECTIVES`; the method's own by default."""


class Moment(NamedTuple):
    """Where in its training a model is."""

    temperature: float
    """τ of equation 10."""
    progress: float
    """Share of the optimisation steps taken, 0 to 1."""


Terms = dict[str, Tensor]
Objective = Callable[[nn.Module, dict[str, Tensor], Moment, Context], Terms]

CONTROL_DESCENT = 0.5
"""Share of a control's steps in which its ratio falls from 1 to the target: at a few per cent alone, small encoders
without pretraining learn nothing, and a control that learnt nothing is no control."""

_MODEL_INPUTS = ("input_ids", "attention_mask", "pixel_values")


def selection_term(context: Context, selected: Tensor, features: Tensor) -> Tensor:
    """Equation 3 as the run's settings read it; `selected` and `features` are counts [batch]."""
    config = context.config
    assert config.target_ratio is not None
    if config.count_all_positions and context.max_length is not None:
        features = torch.full_like(features, context.max_length)
    reference = losses.REFERENCE_FEATURES[context.task] if config.normalise_selection else None
    return losses.selection_loss(selected, features, config.target_ratio, reference, config.selection_loss)


def classification(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """`cls`: the task loss on the whole input."""
    output = model(**_inputs(batch))
    task = losses.task_loss(output.logits, batch["labels"])
    return {"loss": task, "task": task}


def random_masks(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """`control`: the task loss on random masks, from the whole input down to the target ratio in the first half."""
    assert context.config.target_ratio is not None
    share = min(1.0, moment.progress / CONTROL_DESCENT)
    output = model(**_inputs(batch), random_ratio=1.0 + share * (context.config.target_ratio - 1.0))
    task = losses.task_loss(output.logits, batch["labels"])
    return {"loss": task, "task": task}


def rationale_extraction(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """`re`: equation 6."""
    output = model(**_inputs(batch), temperature=moment.temperature)
    return _re_terms(output, batch, context)


def distilled_rationale_extraction(
    model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context
) -> Terms:
    """`rekd`: equation 11."""
    config = context.config
    output = model(**_inputs(batch), temperature=moment.temperature)
    terms = _re_terms(output, batch, context)
    if "teacher_logits" in batch:
        teacher_z, teacher_q = batch["teacher_selection_logits"], batch["teacher_logits"]
    else:
        assert context.teacher is not None
        student_mask = output.mask if config.teacher_mask == "student" else None
        teacher_z, teacher_q = context.teacher.targets(batch, student_mask)
    teacher_noise = output.noise if config.gumbel_noise == "shared" else gumbel_noise(teacher_z)
    teacher_log_selection = gumbel_log_softmax(teacher_z, teacher_noise, moment.temperature)
    counted = torch.ones_like(output.feature) if config.count_all_positions else output.feature
    kd_rationale = losses.rationale_distillation_loss(teacher_log_selection, output.log_selection, counted)
    kd_prediction = losses.prediction_distillation_loss(teacher_q, output.logits, moment.temperature)
    terms |= {"kd_rationale": kd_rationale, "kd_prediction": kd_prediction}
    terms["loss"] = losses.rekd_loss(
        terms["re"], kd_rationale, kd_prediction, moment.temperature, config.alpha, config.lambda_r
    )
    return terms


def predictor_on_fixed_masks(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """`predictor`: the task loss of the predictor on the masks of a generator that learns no more."""
    output = model(**_inputs(batch), fixed_masks=True)
    task = losses.task_loss(output.logits, batch["labels"])
    return {"loss": task, "task": task}


OBJECTIVES: dict[str, Objective] = {
    "cls": classification,
    "control": random_masks,
    "re": rationale_extraction,
    "rekd": distilled_rationale_extraction,
    "predictor": predictor_on_fixed_masks,
}


def _inputs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: batch[name] for name in _MODEL_INPUTS if name in batch}


def _re_terms(output: RationaleOutput, batch: dict[str, Tensor], context: Context) -> Terms:
    config = context.config
    assert config.lambda_select is not None
    features = output.feature.sum(dim=-1).float()
    selected = output.mask.sum(dim=-1)
    task = losses.task_loss(output.logits, batch["labels"])
    selection = selection_term(context, selected, features)
    re = losses.re_loss(task, selection, config.lambda_select)
    with torch.no_grad():
        share = features.clamp(min=1)
        sampled_ratio = ((output.mask * output.feature).sum(dim=-1) / share).mean()
        argmax_ratio = (((output.margin > 0) & output.feature).sum(dim=-1) / share).mean()
    return {
        "loss": re,
        "re": re,
        "task": task,
        "selection": selection,
        "sampled_ratio": sampled_ratio,
        "argmax_ratio": argmax_ratio,
    }

"""What a teacher adds to any method's loss: equations 7 to 11 of arXiv 2601.22531 and their variants."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rekd_edge.modeling import RationaleOutput
from rekd_edge.modeling.selection import gumbel_log_softmax, gumbel_noise
from rekd_edge.training import losses
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.objectives import Context, Moment, Terms

__all__ = ["distilled", "distilled_prediction", "has_teachers"]

TINY = torch.finfo(torch.float32).tiny


def has_teachers(batch: dict[str, Tensor], context: Context) -> bool:
    """Whether there is anything to distil from."""
    return context.teachers is not None or "teacher_logits" in batch


def distilled(
    terms: Terms,
    output: RationaleOutput,
    batch: dict[str, Tensor],
    moment: Moment,
    context: Context,
    selection_temperature: float | None = None,
) -> Terms:
    """Mix a student's own loss with its teachers' (equation 11).

    Args:
        terms: of the student's own loss.
        output: of the student; its selection has log S.
        batch: with the teachers' targets, unless `context.teachers` gives them.
        moment: τ and progress.
        context: settings.
        selection_temperature: the one at which the student's log S was made, where it is not τ.
    """
    config, selection = context.config, output.selection
    assert selection.log_selection is not None
    targets = _targets(output, batch, context)
    temperature = config.kd_temperature or moment.temperature
    log_selection = selection.log_selection

    if selection_temperature is None:
        selection_temperature = temperature
        if config.kd_temperature and selection.logits is not None and selection.noise is not None:
            log_selection = gumbel_log_softmax(selection.logits, selection.noise, temperature)

    if config.teacher_labels == "hard":
        selection_target = _log_of_mask(targets["teacher_mask"])
    else:
        z = targets["teacher_selection_logits"]  # [batch, features, teachers, 2]
        noise = _teacher_noise(z, selection.noise, config.gumbel_noise, moment.teacher_noise)
        selection_target = _averaged(gumbel_log_softmax(z, noise, selection_temperature), 2)

    counted = torch.ones_like(selection.feature) if config.count_all_positions else selection.feature
    kd_rationale = losses.rationale_distillation_loss(selection_target, log_selection, counted)
    kd_prediction = _prediction_loss(targets["teacher_logits"], output, temperature, config)
    loss = losses.rekd_loss(
        terms["loss"],
        kd_rationale if config.distil != "prediction" else 0.0 * kd_rationale,
        kd_prediction if config.distil != "rationale" else 0.0 * kd_prediction,
        temperature,
        config.alpha_at(moment.progress),
        config.lambda_r,
    )

    return {**terms, "loss": loss, "kd_rationale": kd_rationale, "kd_prediction": kd_prediction}


def distilled_prediction(
    terms: Terms,
    output: RationaleOutput,
    batch: dict[str, Tensor],
    context: Context,
    temperature: float,
    alpha: float,
) -> Terms:
    """Mix the task loss of a predictor with its teachers' labels: equation 11 without what selects.

    Args:
        terms: of the task loss.
        output: of the student.
        batch: with the teachers' targets, unless `context.teachers` gives them.
        context: settings.
        temperature: τ of equation 8.
        alpha: α of equation 11.
    """
    config = context.config
    if config.distil == "rationale":
        return terms

    targets = _targets(output, batch, context)
    kd_prediction = _prediction_loss(targets["teacher_logits"], output, temperature, config)
    nothing = torch.zeros_like(kd_prediction)
    loss = losses.rekd_loss(terms["loss"], nothing, kd_prediction, temperature, alpha, config.lambda_r)

    return {**terms, "loss": loss, "kd_prediction": kd_prediction}


def _targets(output: RationaleOutput, batch: dict[str, Tensor], context: Context) -> dict[str, Tensor]:
    """What the teachers say: stored beside the batch, or asked now, as what they say of a student's mask always is."""
    shown = output.mask if context.config.teacher_mask == "student" else None
    if "teacher_logits" not in batch:
        assert context.teachers is not None
        return context.teachers.targets(batch, shown)

    stored = {name: values for name, values in batch.items() if name.startswith("teacher_")}
    if shown is not None:
        assert context.teachers is not None
        stored["teacher_logits"] = context.teachers.labels(batch, shown)

    return stored


def _prediction_loss(teachers: Tensor, output: RationaleOutput, temperature: float, config: TrainingConfig) -> Tensor:
    """L_KD^Y of the teachers' logits [batch, teachers, classes]."""
    if config.teacher_labels == "hard":
        target = _log_of_label(teachers)
    else:
        target = _averaged(torch.log_softmax(teachers.float() / temperature, dim=-1), 1)
    return losses.prediction_distillation_loss(target, output.logits, temperature)


def _teacher_noise(z: Tensor, student_noise: Tensor | None, kind: str, drawn: Tensor | None) -> Tensor:
    """One draw for all teachers, [batch, features, 1, 2]; none where the student has none."""
    if student_noise is None:
        return torch.zeros_like(z[:, :, :1])
    if kind == "shared":
        return student_noise[:, :, None]
    return gumbel_noise(z[:, :, :1]) if drawn is None else drawn[:, :, None]


def _averaged(log_probabilities: Tensor, axis: int) -> Tensor:
    """The logarithm of the teachers' mean distribution."""
    return log_probabilities.logsumexp(dim=axis) - math.log(log_probabilities.shape[axis])


def _log_of_mask(mask: Tensor) -> Tensor:
    """Masks [batch, features, teachers] as log S [batch, features, 2]; of several, the share that selects."""
    share = mask.float().mean(dim=-1)
    return torch.stack([1 - share, share], dim=-1).clamp(min=TINY).log()


def _log_of_label(logits: Tensor) -> Tensor:
    """The labels that teachers give, [batch, teachers, classes], as log probabilities [batch, classes]."""
    classes = torch.arange(logits.shape[-1], device=logits.device)
    chosen = logits.argmax(dim=-1, keepdim=True) == classes  # one_hot makes the host wait
    return chosen.float().mean(dim=1).clamp(min=TINY).log()

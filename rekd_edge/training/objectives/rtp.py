"""`rtp`: a classifier that scores tokens for every class, judged by a frozen copy of itself (arXiv 2508.11393)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from rekd_edge.errors import InputError
from rekd_edge.modeling.rtp import SIGMA, RTPOutput, class_scores, of_class, random_shares
from rekd_edge.settings import NotNegative, Section
from rekd_edge.training import losses
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.objectives import Context, Moment, Terms, inputs_of
from rekd_edge.training.objectives.distillation import distilled, has_teachers

if TYPE_CHECKING:
    from rekd_edge.training.inference import Predictions

__all__ = [
    "Settings",
    "complement_loss",
    "dev_terms",
    "has_begun",
    "objective",
    "prepare",
    "rationale_loss",
    "regulariser",
]

STEP = 1e-6
"""Tolerance, in epochs, for the rounding of `Moment.progress`."""


@dataclass(frozen=True)
class Settings(Section):
    """RTP's own settings; the defaults are those of the paper.

    Small encoders without pretraining saturate the mask of the class that an empty text is given, unless the heads
    learn faster (`head_learning_rate` ten times the encoder's) and the label's mask costs more (`rtp.lambda_label=1`).
    Hundreds of steps instead of thousands need `rtp.lambda_blended=1`, `rtp.lambda_label=5` and `rtp.smoothness=mean`
    (docs/methods.md).
    """

    section = "rtp"

    sigma: Literal["sender", "receiver"] = "sender"
    """Whose σ widens the mask: that of the token which spreads its weight (`sender`, the paper) or of the token which
    gathers it (`receiver`, the published code)."""
    rationale_loss: Literal["log_sigmoid", "cross_entropy"] = "log_sigmoid"
    """What the rationale's logit of the label is held to: `log_sigmoid` (the published code, -log sigmoid even though
    labels are a softmax) or `cross_entropy`."""
    freeze_class_head: bool = True
    """The class head learns from whole texts alone; false lets it learn from blended ones too, as the published
    stand-alone wrapper does."""
    warmup_epochs: Annotated[int, Field(ge=0, le=100_000)] = 3
    """Epochs of plain classification before rationales are learnt (a teacher's are learnt from the first)."""
    lambda_rationale: NotNegative = 2.5
    """Weight of: the rationale of the label predicts it."""
    lambda_complement: NotNegative = 2.5
    """Weight of: what is left without the rationale does not."""
    lambda_blended: NotNegative = 0.0
    """Weight of: a text of which words drawn at random are turned to padding, in any number down to the target ratio,
    predicts the label, in the warm-up too. 0 is the paper's; short training needs it, or the model cannot read its own
    rationales."""
    lambda_regulariser: NotNegative = 1.5
    """Weight of all terms below."""
    lambda_l1: NotNegative = 0.001
    """Weight of the mean masks, summed over the classes."""
    lambda_label: NotNegative = 0.2
    """Weight of the square of the label's mean mask."""
    lambda_others: NotNegative = 0.05
    """Weight of the squares of the other classes' mean masks, summed."""
    lambda_sigma: NotNegative = 0.02
    """Weight of the mean of (σ - 3)² over the text, summed over the classes."""
    lambda_smooth: NotNegative = 0.05
    """Weight of the squared differences of neighbouring mask values, averaged over the classes."""
    smoothness: Literal["sum", "mean"] = "sum"
    """How those differences are reduced over a text: their `sum` (the published code) or their `mean`, which makes
    `lambda_smooth` independent of the length."""


def prepare(config: TrainingConfig, data: Any, preprocessing: Any) -> TrainingConfig:
    """Refuse a run that would end before it learnt a rationale.

    Raises:
        InputError: no epoch is left after the warm-up, or there is to be a stage that RTP has not.
    """
    own, epochs, mends = config.options, config.epochs or 0, []
    if epochs <= own.warmup_epochs:
        mends.append(
            f"epochs={own.warmup_epochs + 1} or more (rationales are learnt after {own.warmup_epochs} of warm-up)"
        )
    if config.predictor_epochs:
        mends.append("predictor_epochs=0 (no predictor stands apart from what selects)")
    if config.early_stopping and own.warmup_epochs:
        mends.append("early_stopping=null (it could end the run in the warm-up)")
    if config.count_all_positions:
        mends.append("count_all_positions=false (tokens alone are scored)")
    if mends:
        raise InputError(f"For rtp set {', '.join(mends)}.")

    return config


def objective(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """Classification; after the warm-up also what rationale and complement say, and the regulariser."""
    config, own, labels = context.config, context.config.options, batch["labels"]
    warm = moment.progress * (config.epochs or 1) + STEP < own.warmup_epochs
    explained: dict[str, Any] = {"explained": labels, "freeze_class_head": own.freeze_class_head}

    if warm:  # what scores the tokens has no part in it
        explained = {"fixed_masks": not has_teachers(batch, context)}

    if own.lambda_blended and moment.noise is not None:
        explained["shares"] = random_shares(moment.noise, config.target_ratio or 0.0)

    output: RTPOutput = model(**inputs_of(batch), **explained)
    selection = output.selection
    task = losses.task_loss(output.logits, labels)
    terms = {"loss": task, "task": task}

    if output.blended_logits is not None:
        terms["blended"] = losses.task_loss(output.blended_logits, labels)
        terms["loss"] = task + own.lambda_blended * terms["blended"]

    if output.rationale_logits is not None and output.complement_logits is not None:
        scores = class_scores(selection)
        terms["rationale"] = rationale_loss(output.rationale_logits, labels, own.rationale_loss)
        terms["complement"] = complement_loss(output.complement_logits, labels)
        terms["regulariser"] = regulariser(scores, selection.sigma, selection.feature, labels, own)
        terms["loss"] = (
            terms["loss"]
            + own.lambda_rationale * terms["rationale"]
            + own.lambda_complement * terms["complement"]
            + own.lambda_regulariser * terms["regulariser"]
        )

        if config.lambda_contiguity:
            terms["contiguity"] = losses.contiguity_loss(of_class(scores, labels), selection.feature)
            terms["loss"] = terms["loss"] + config.lambda_contiguity * terms["contiguity"]

        with torch.no_grad():
            share = of_class(scores, labels).sum(dim=-1) / selection.feature.sum(dim=-1).clamp(min=1)
            terms["mean_mask"] = share.mean()

    if not has_teachers(batch, context):
        return terms

    evidence = of_class(selection.evidence, labels)
    log_selection = torch.stack([functional.logsigmoid(-evidence), functional.logsigmoid(evidence)], dim=-1)
    ours = replace(output, selection=replace(selection, log_selection=log_selection))

    return distilled(terms, ours, batch, moment, context, selection_temperature=1.0)


def rationale_loss(logits: Tensor, labels: Tensor, kind: str) -> Tensor:
    """The loss of the rationale's logits [batch, classes] for its class, the mean over the batch."""
    if kind == "cross_entropy":
        return losses.task_loss(logits, labels)
    return -functional.logsigmoid(losses.at_least_float32(logits).gather(1, labels[:, None])).mean()


def complement_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """max(0, p_y - 1/C), the mean over the batch: the complement may not predict the label better than chance."""
    probability = torch.softmax(losses.at_least_float32(logits), dim=-1).gather(1, labels[:, None])
    return (probability - 1 / logits.shape[1]).clamp(min=0).mean()


def regulariser(scores: Tensor, sigma: Tensor, feature: Tensor, labels: Tensor, own: Settings) -> Tensor:
    """The regulariser of the published code (its stand-alone wrapper, `calculate_regularization_loss`).

    With a_c the mean of the mask λ of class c over the features of a text and y its label, a text contributes

        λ_l1 Σ_c a_c + λ_label a_y² + λ_others Σ_(c≠y) a_c² + λ_sigma Σ_c mean_t (σ_(t,c) - 3)²
        + λ_smooth mean_c Σ_t (λ_(t+1,c) - λ_(t,c))²

    Args:
        scores: λ [batch, features, classes], 0 where a position is not a feature.
        sigma: σ [batch, features, classes].
        feature: bool [batch, features]; means and sums are over these alone.
        labels: int64 [batch].
        own: the weights, and how smoothness is reduced over a text.

    Returns:
        The mean over the batch, a scalar.
    """
    real = feature[..., None]
    count = feature.sum(dim=-1, keepdim=True).clamp(min=1)  # [batch, 1]

    mean_mask = scores.sum(dim=1) / count  # a_c, [batch, classes]
    is_label = labels[:, None] == torch.arange(scores.shape[-1], device=labels.device)  # [batch, classes]
    squares = mean_mask.square()

    width = ((sigma - SIGMA).square() * real).sum(dim=1) / count  # [batch, classes]

    neighbours = feature[:, 1:] & feature[:, :-1]
    steps = (scores.diff(dim=1).square() * neighbours[..., None]).sum(dim=1).mean(dim=-1)  # [batch]

    if own.smoothness == "mean":
        steps = steps / neighbours.sum(dim=-1).clamp(min=1)

    each = (
        own.lambda_l1 * mean_mask.sum(dim=-1)
        + own.lambda_label * (squares * is_label).sum(dim=-1)
        + own.lambda_others * (squares * ~is_label).sum(dim=-1)
        + own.lambda_sigma * width.sum(dim=-1)
        + own.lambda_smooth * steps
    )  # [batch]
    return each.mean()


def has_begun(epochs: float, config: TrainingConfig) -> bool:
    """Whether rationales were learnt in the last of so many epochs: what a run ends with is no epoch of the warm-up."""
    return bool(config.teacher) or epochs > config.options.warmup_epochs + STEP


def dev_terms(predictions: Predictions, context: Context) -> dict[str, float]:
    """Cross-entropy from the rationale alone, which the task loss says nothing of."""
    assert predictions.rationale_logits is not None
    logits, labels = torch.from_numpy(predictions.rationale_logits), torch.from_numpy(predictions.labels)
    return {"rationale_loss": float(losses.task_loss(logits, labels))}

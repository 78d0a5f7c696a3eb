"""`re`: rationale extraction, equations 3 to 6 of arXiv 2601.22531."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rekd_edge.modeling import RationaleOutput
from rekd_edge.training import losses
from rekd_edge.training.objectives import Context, Moment, Terms, inputs_of, ratio_terms

if TYPE_CHECKING:
    from rekd_edge.training.inference import Predictions

__all__ = ["dev_terms", "objective", "re_terms"]


def objective(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """Equation 6."""
    output = model(**inputs_of(batch), temperature=moment.temperature, noise=moment.noise)
    return re_terms(output, batch, moment, context)


def re_terms(output: RationaleOutput, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """L_RE of equation 6, with the contiguity loss where it has a weight."""
    config = context.config
    assert config.lambda_select is not None
    task = losses.task_loss(output.logits, batch["labels"])
    features = output.selection.feature.sum(dim=-1).float()
    selected = output.mask.sum(dim=-1)
    selection = selection_term(context, selected, features, batch["labels"])
    terms = {"re": losses.re_loss(task, selection, config.lambda_select), "task": task, "selection": selection}

    if config.lambda_contiguity:
        terms["contiguity"] = losses.contiguity_loss(output.mask, output.selection.feature, context.grid)
        terms["re"] = terms["re"] + config.lambda_contiguity * terms["contiguity"]

    return {"loss": terms["re"], **terms, **ratio_terms(output)}


def selection_term(context: Context, selected: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """Equation 3 as the run's settings read it; `selected` and `features` are counts [batch]."""
    config = context.config
    if config.count_all_positions and context.max_length is not None:
        features = torch.full_like(features, context.max_length)
    reference = losses.REFERENCE_FEATURES[context.task] if config.normalise_selection else None
    return losses.selection_loss(selected, features, context.ratios(labels), reference, config.selection_loss)


def dev_terms(predictions: Predictions, context: Context) -> dict[str, float]:
    """λ_select times equation 3 on the masks of the predictions."""
    selected = torch.tensor([float(mask.sum()) for mask in predictions.masks])
    features = torch.tensor([float(len(mask)) for mask in predictions.masks])
    selection = selection_term(context, selected, features, torch.from_numpy(predictions.labels))
    return {"selection_penalty": (context.config.lambda_select or 0.0) * float(selection)}

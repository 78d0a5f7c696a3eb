"""The stage in which the predictor goes on alone, on the deterministic masks of a generator that learns no more."""

from __future__ import annotations

from torch import Tensor, nn

from rekd_edge.training.objectives import Context, Moment, Terms, inputs_of, task_terms
from rekd_edge.training.objectives.distillation import distilled_prediction, has_teachers

__all__ = ["objective"]


def objective(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """The task loss; with teachers what equation 11 of arXiv 2601.22531 leaves of it at τ = 1 for a predictor."""
    output = model(**inputs_of(batch), fixed_masks=True)
    terms = task_terms(output.logits, batch)
    if not has_teachers(batch, context):
        return terms
    config = context.config
    return distilled_prediction(terms, output, batch, context, config.kd_temperature or 1.0, config.alpha_at(1.0))

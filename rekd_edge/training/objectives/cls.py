"""`cls`: a classifier of the whole input; with a teacher, plain knowledge distillation (CLS + KD)."""

from __future__ import annotations

from torch import Tensor, nn

from rekd_edge.training.objectives import Context, Moment, Terms, inputs_of, task_terms
from rekd_edge.training.objectives.distillation import distilled_prediction, has_teachers

__all__ = ["objective"]


def objective(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """The task loss on the whole input; with teachers it takes the place of L_RE in equation 11 of arXiv 2601.22531,
    whose distillation term is then equation 8 alone.
    """
    output = model(**inputs_of(batch))
    terms = task_terms(output.logits, batch)

    if not has_teachers(batch, context):
        return terms

    config = context.config
    temperature = config.kd_temperature or moment.temperature
    return distilled_prediction(terms, output, batch, context, temperature, config.alpha_at(moment.progress))

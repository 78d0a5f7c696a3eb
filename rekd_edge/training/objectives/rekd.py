"""`rekd`: rationale extraction distilled from a rationalist, equation 11 of arXiv 2601.22531."""

from __future__ import annotations

from torch import Tensor, nn

from rekd_edge.training.objectives import Context, Moment, Terms, inputs_of
from rekd_edge.training.objectives.distillation import distilled
from rekd_edge.training.objectives.re import dev_terms, re_terms

__all__ = ["dev_terms", "objective"]


def objective(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """Equation 11."""
    output = model(**inputs_of(batch), temperature=moment.temperature, noise=moment.noise)
    return distilled(re_terms(output, batch, moment, context), output, batch, moment, context)

"""`cls`: a classifier of the whole input."""

from __future__ import annotations

from torch import Tensor, nn

from rekd_edge.training.objectives import Context, Moment, Terms, inputs_of, task_terms

__all__ = ["objective"]


def objective(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """The task loss on the whole input."""
    return task_terms(model(**inputs_of(batch)).logits, batch)

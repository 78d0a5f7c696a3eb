"""`control`: a predictor of random masks, beside which every rationalist stands."""

from __future__ import annotations

from torch import Tensor, nn

from rekd_edge.training.objectives import Context, Moment, Terms, inputs_of, task_terms

__all__ = ["objective"]

DESCENT = 0.5
"""Share of the steps in which the ratio falls from 1 to the target: at a few per cent alone, small encoders without
pretraining learn nothing, and a control that learnt nothing is no control."""


def objective(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """The task loss on random masks: from the whole input down to the target ratio in the first half of the steps, or
    at the target ratio throughout (`fixed`).
    """
    config = context.config
    assert config.target_ratio is not None
    share = 1.0 if config.comparison_control == "fixed" else min(1.0, moment.progress / DESCENT)
    ratio = 1.0 + share * (config.target_ratio - 1.0)
    output = model(**inputs_of(batch), random_ratio=ratio, noise=moment.noise)
    return task_terms(output.logits, batch)

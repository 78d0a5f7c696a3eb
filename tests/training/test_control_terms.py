"""The control's objective: what share of the input it shows when, and what it minimises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rekd_edge.modeling import RationaleOutput, Selection
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.objectives import Context, Moment, objective_of


@pytest.mark.parametrize(
    ("kind", "progress", "ratio"),
    [
        *[("descent", *each) for each in [(0.0, 1.0), (0.25, 0.6), (0.4, 0.36), (0.5, 0.2), (0.75, 0.2), (1.0, 0.2)]],
        *[("fixed", progress, 0.2) for progress in (0.0, 0.4, 1.0)],
    ],
)
def test_the_ratio_falls_to_the_target_in_the_first_half_or_is_there_from_the_start(
    kind: str, progress: float, ratio: float
) -> None:
    config = TrainingConfig(method="control", target_ratio=0.2, comparison_control=kind).resolved("text")  # type: ignore[arg-type]
    logits, noise = torch.tensor([[0.3, -1.1], [2.0, 0.5]], requires_grad=True), torch.rand(2, 4, 1)
    asked: list[dict[str, Any]] = []

    def model(**given: Any) -> RationaleOutput:
        asked.append(given)
        return RationaleOutput(logits, torch.ones(2, 4), torch.ones(2, 4), Selection(torch.ones(2, 4).bool()))

    batch = {"input_ids": torch.zeros(2, 4), "labels": torch.tensor([1, 0])}
    moment = Moment(1.0, progress, noise)
    terms = objective_of("control")(model, batch, moment, Context(config, "text", ("neg", "pos")))  # type: ignore[arg-type]
    assert asked[0]["random_ratio"] == pytest.approx(ratio)
    assert asked[0]["noise"] is noise
    z = logits.detach().double().numpy()
    expected = np.mean(np.log(np.exp(z).sum(axis=1)) - z[[0, 1], [1, 0]])
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-6)
    assert terms["loss"] is terms["task"]

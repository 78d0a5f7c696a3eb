"""The shares that training prints, by hand."""

from __future__ import annotations

import pytest
import torch

from rekd_edge.modeling import RationaleOutput, Selection
from rekd_edge.training.objectives import ratio_terms


def test_shares_of_the_features_that_are_sampled_and_that_the_margins_select() -> None:
    feature = torch.tensor([[True, True, True, False], [True, False, False, False], [False] * 4])
    mask = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0], [1.0] * 4])
    margin = torch.tensor([[0.5, -1.0, 0.0, 5.0], [2.0, 2.0, 2.0, 2.0], [3.0] * 4])
    terms = ratio_terms(RationaleOutput(torch.zeros(3, 2), mask, margin, Selection(feature)))
    assert float(terms["sampled_ratio"]) == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert float(terms["argmax_ratio"]) == pytest.approx((1 / 3 + 1 + 0) / 3)  # a tie is not selected

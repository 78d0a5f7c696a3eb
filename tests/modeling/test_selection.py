"""Equations 1 and 2, the deterministic rule and the random control, against numpy and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rekd_edge.modeling.selection import (
    NEVER_SELECTED,
    deterministic_mask,
    gumbel_log_softmax,
    gumbel_noise,
    random_mask,
    selection_margin,
    straight_through_mask,
)

EULER = 0.5772156649015329


def equation_1(logits: np.ndarray, noise: np.ndarray, temperature: float) -> np.ndarray:
    """S = softmax((Z + G) / τ), in float64."""
    scaled = (logits.astype(np.float64) + noise.astype(np.float64)) / temperature
    exponential = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def the_rule(margins: list[float], feature: list[bool]) -> list[bool]:
    """DESIGN, "Numeric rules", as a sentence: above 0, else the first largest; features only."""
    selected = [real and margin > 0 for margin, real in zip(margins, feature, strict=True)]
    if not any(selected) and any(feature):
        best = -math.inf
        for place, (margin, real) in enumerate(zip(margins, feature, strict=True)):
            if real and margin > best:
                best, first = margin, place
        selected[first] = True
    return selected


@pytest.mark.parametrize("temperature", [5.0, 1.0, 0.1])
def test_gumbel_softmax_is_equation_1(temperature: float) -> None:
    random = np.random.default_rng(0)
    logits, noise = random.normal(0, 3, (2, 4, 7, 2)).astype(np.float32)
    ours = gumbel_log_softmax(torch.from_numpy(logits), torch.from_numpy(noise), temperature).exp()
    np.testing.assert_allclose(ours.numpy(), equation_1(logits, noise, temperature), atol=1e-6)


def test_sampled_mask_is_exactly_the_argmax_of_equation_2() -> None:
    random = np.random.default_rng(1)
    logits, noise = random.normal(0, 2, (2, 64, 50, 2)).astype(np.float32)
    feature = torch.from_numpy(random.random((64, 50)) < 0.8)
    mask = straight_through_mask(
        gumbel_log_softmax(torch.from_numpy(logits), torch.from_numpy(noise), 0.37).requires_grad_(), feature
    )
    expected = equation_1(logits, noise, 0.37).argmax(axis=-1) * feature.numpy()
    assert np.array_equal(mask.detach().numpy(), expected.astype(np.float32))  # 0 and 1, not a rounding beside them


def test_gradient_of_the_mask_is_that_of_the_soft_selection() -> None:
    torch.manual_seed(0)
    weight, noise = torch.randn(3, 5), gumbel_noise(torch.empty(3, 5, 2))
    feature = torch.ones(3, 5, dtype=torch.bool)
    feature[0, 3:] = False
    gradients = []
    for hard in (True, False):
        logits = torch.linspace(-2, 2, 30).view(3, 5, 2).clone().requires_grad_()
        log_selection = gumbel_log_softmax(logits, noise, 0.7)
        mask = straight_through_mask(log_selection, feature) if hard else log_selection[..., 1].exp() * feature
        (weight * mask).sum().backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0][0, 3:].abs().max() == 0
    assert gradients[0][1:].abs().min() > 0


def test_gumbel_noise_has_the_mean_and_variance_of_a_gumbel_variable() -> None:
    noise = gumbel_noise(torch.empty(400_000, dtype=torch.bfloat16), torch.Generator().manual_seed(0))
    assert noise.dtype == torch.float32
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(EULER, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)


def test_gumbel_noise_is_finite_where_the_uniform_draw_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    for extreme in (0.0, 1 - 2**-24):
        monkeypatch.setattr(torch, "rand", lambda shape, *, value=extreme, **_: torch.full(shape, value))
        assert gumbel_noise(torch.empty(3)).isfinite().all()


@given(
    arrays(np.float32, (3, 4, 2), elements=st.floats(-50, 50, width=32)), st.floats(-5, 5, width=32), st.integers(0, 4)
)
def test_margin_is_the_difference_of_logits_plus_bias(logits: np.ndarray, bias: float, real: int) -> None:
    feature = np.arange(4) < np.array([[real], [4], [0]])
    margin = selection_margin(torch.from_numpy(logits), torch.from_numpy(feature), bias).numpy()
    expected = logits[..., 1] - logits[..., 0] + np.float32(bias)
    assert margin.dtype == np.float32
    assert np.array_equal(margin, np.where(feature, expected, np.finfo(np.float32).min))


# few distinct values, so that ties at 0 and ties of the largest margin are common
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from([-2.0, -1.0, -1e-30, 0.0, 1e-30, 3.0]), st.booleans()), min_size=6, max_size=6
        ),
        min_size=1,
        max_size=4,
    )
)
def test_deterministic_mask_follows_the_rule(rows: list[list[tuple[float, bool]]]) -> None:
    margins = [[margin if real else NEVER_SELECTED for margin, real in row] for row in rows]
    feature = [[real for _, real in row] for row in rows]
    mask = deterministic_mask(torch.tensor(margins), torch.tensor(feature))
    assert mask.tolist() == [the_rule(*row) for row in zip(margins, feature, strict=True)]


@pytest.mark.parametrize(
    ("margins", "feature", "expected"),
    [
        pytest.param([0.0, 1.0], [1, 1], [0, 1], id="a tie at 0 is not selected"),
        pytest.param([0.0, -1.0], [1, 1], [1, 0], id="unless it is the largest and nothing is selected"),
        pytest.param([-3.0, -1.0, -1.0], [1, 1, 1], [0, 1, 0], id="the first on a tie"),
        pytest.param([NEVER_SELECTED, NEVER_SELECTED], [0, 0], [0, 0], id="nothing without features"),
        pytest.param([5.0, -9.0, 5.0], [0, 1, 0], [0, 1, 0], id="never padding or special tokens"),
    ],
)
def test_deterministic_mask_by_hand(margins: list[float], feature: list[int], expected: list[int]) -> None:
    margin = torch.tensor([margins]).masked_fill(torch.tensor([feature]) == 0, NEVER_SELECTED)
    assert deterministic_mask(margin, torch.tensor([feature]) == 1)[0].long().tolist() == expected


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.floats(0.01, 1), st.integers(0, 99))
def test_random_mask_selects_its_share_of_the_features(counts: list[int], ratio: float, seed: int) -> None:
    feature = torch.zeros(len(counts), 12, dtype=torch.bool)
    for row, count in enumerate(counts):
        feature[row, 12 - count :] = True
    mask = random_mask(feature, ratio, torch.Generator().manual_seed(seed))
    assert not (mask & ~feature).any()
    expected = [min(count, max(1, round(np.float32(count) * np.float32(ratio)))) for count in counts]
    assert mask.sum(dim=1).tolist() == expected


def test_random_mask_treats_all_features_alike() -> None:
    feature = torch.ones(6000, 10, dtype=torch.bool)
    feature[:, 7:] = False
    often = random_mask(feature, 0.3, torch.Generator().manual_seed(0)).float().mean(dim=0)
    torch.testing.assert_close(often, torch.tensor([2 / 7] * 7 + [0.0] * 3), atol=0.03, rtol=0)

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
    Limits,
    at_units,
    deterministic_mask,
    gumbel_log_softmax,
    gumbel_noise,
    mean_over_units,
    random_mask,
    selection_margin,
    straight_through_mask,
    word_units,
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


def words_of(starts: list[bool], feature: list[bool]) -> list[int]:
    """The unit of each place, one after the other."""
    units: list[int] = []
    for place, (start, real) in enumerate(zip(starts, feature, strict=True)):
        joins = place > 0 and real and feature[place - 1] and not start
        units.append(units[-1] if joins else place)
    return units


def limited_rule(margins: list[float], feature: list[bool], units: list[int], limits: Limits) -> list[bool]:
    """Whole units, the best first: those above 0 as far as they fit, then more until there are enough."""
    members = {unit: [p for p, u in enumerate(units) if u == unit and feature[p]] for unit in units}
    ranked = sorted((unit for unit, places in members.items() if places), key=lambda unit: (-margins[unit], unit))
    selected: set[int] = set()
    passed = 0
    for unit in ranked:
        fits = limits.maximum is None or passed + len(members[unit]) <= limits.maximum
        if passed < limits.minimum or (margins[unit] > 0 and fits):
            selected.update(members[unit])
        passed += len(members[unit])
    return [place in selected for place in range(len(margins))]


rows_in_words = st.lists(
    st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), st.booleans(), st.booleans()), min_size=1, max_size=9
)


@given(rows_in_words, st.integers(1, 4), st.one_of(st.none(), st.integers(4, 7)), st.booleans())
def test_words_are_selected_whole_and_within_limits(
    row: list[tuple[float, bool, bool]], minimum: int, maximum: int | None, words: bool
) -> None:
    values, starts, feature = (list(column) for column in zip(*row, strict=True))
    expected_units = words_of(starts, feature) if words else list(range(len(row)))
    unit = word_units(torch.tensor([starts]), torch.tensor([feature])) if words else None
    assert unit is None or unit[0].tolist() == expected_units
    margins = [values[u] if real else NEVER_SELECTED for u, real in zip(expected_units, feature, strict=True)]
    limits = Limits(minimum, maximum)
    mask = deterministic_mask(torch.tensor([margins]), torch.tensor([feature]), unit, limits)[0].tolist()
    assert mask == limited_rule(margins, feature, expected_units, limits)
    if limits == Limits(1, None):  # the same rule by the shorter way
        assert mask == deterministic_mask(torch.tensor([margins]), torch.tensor([feature]), unit)[0].tolist()
    for place, chosen in enumerate(mask):
        assert chosen == mask[expected_units[place]] or not feature[place]


def test_limits_by_hand() -> None:
    margin, feature = torch.tensor([[3.0, 2.0, 2.0, -1.0]]), torch.ones(1, 4, dtype=torch.bool)
    unit = torch.tensor([[0, 1, 1, 3]])

    def select(minimum: int, maximum: int | None, unit: torch.Tensor | None = None) -> list[int]:
        return deterministic_mask(margin, feature, unit, Limits(minimum, maximum))[0].long().tolist()

    assert select(1, 2) == [1, 1, 0, 0]  # the first on a tie
    assert select(1, 2, unit) == [1, 0, 0, 0]  # a word that does not fit is left out whole
    assert select(2, None, unit) == [1, 1, 1, 0]
    assert select(4, None) == [1, 1, 1, 1]


@given(rows_in_words, st.integers(0, 99))
def test_units_share_mean_and_noise_exactly(row: list[tuple[float, bool, bool]], seed: int) -> None:
    _, starts, feature = (list(column) for column in zip(*row, strict=True))
    units = words_of(starts, feature)
    values = torch.randn(1, len(row), 2, generator=torch.Generator().manual_seed(seed))
    unit = word_units(torch.tensor([starts]), torch.tensor([feature]))
    mean, first = mean_over_units(values, unit)[0], at_units(values, unit)[0]
    for place, own in enumerate(units):
        members = [p for p, u in enumerate(units) if u == own]
        np.testing.assert_allclose(mean[place], values[0, members].mean(dim=0), atol=1e-6)
        assert torch.equal(mean[place], mean[own])
        assert torch.equal(first[place], values[0, own])


def test_sampled_masks_keep_the_limits_and_their_gradient() -> None:
    torch.manual_seed(0)
    logits, feature = torch.randn(40, 9, 2).requires_grad_(), torch.ones(40, 9, dtype=torch.bool)
    feature[:, 7:] = False
    log_selection = gumbel_log_softmax(logits, gumbel_noise(logits), 0.7)
    mask = straight_through_mask(log_selection, feature, None, Limits(2, 4))
    assert set(mask.detach().unique().tolist()) == {0.0, 1.0}
    assert ((mask.sum(dim=1) >= 2) & (mask.sum(dim=1) <= 4)).all()
    assert not mask[:, 7:].any()
    free = straight_through_mask(log_selection, feature)
    inside = (free.sum(dim=1) >= 2) & (free.sum(dim=1) <= 4)
    assert torch.equal(mask[inside], free[inside])
    mask.sum().backward()
    assert logits.grad[:, :7].abs().min() > 0  # also of what a limit took away or added


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.floats(0.01, 1), st.integers(0, 99))
def test_random_mask_selects_the_count_below_or_above_its_share(counts: list[int], ratio: float, seed: int) -> None:
    feature = torch.zeros(len(counts), 12, dtype=torch.bool)
    for row, count in enumerate(counts):
        feature[row, 12 - count :] = True
    mask = random_mask(feature, ratio, torch.Generator().manual_seed(seed))
    assert not (mask & ~feature).any()
    for count, selected in zip(counts, mask.sum(dim=1).tolist(), strict=True):
        share = float(np.float32(count) * np.float32(ratio))
        assert selected in {min(count, max(1, whole)) for whole in (math.floor(share), math.ceil(share))}


@pytest.mark.parametrize(("features", "ratio"), [(36, 0.15), (36, 0.99), (7, 0.5), (40, 0.1)])
def test_random_mask_holds_the_ratio_in_the_mean(features: int, ratio: float) -> None:
    rows = 20_000
    mask = random_mask(torch.ones(rows, features, dtype=torch.bool), ratio, torch.Generator().manual_seed(1)).numpy()
    fraction = features * ratio - np.floor(features * ratio)
    error = np.sqrt(fraction * (1 - fraction) / rows)  # of the mean of a Bernoulli variable
    assert mask.sum(axis=1).mean() == pytest.approx(features * ratio, abs=4 * error + 1e-6)


def test_random_mask_rounds_by_the_number_it_is_given() -> None:
    feature, rounding = torch.ones(4, 36, dtype=torch.bool), torch.tensor([0.0, 0.39, 0.41, 0.99])
    mask = random_mask(feature, 0.15, torch.Generator().manual_seed(0), rounding=rounding)
    assert mask.sum(dim=1).tolist() == [6, 6, 5, 5]  # 5.4


def test_random_mask_treats_all_features_alike() -> None:
    feature = torch.ones(6000, 10, dtype=torch.bool)
    feature[:, 7:] = False
    often = random_mask(feature, 0.3, torch.Generator().manual_seed(0)).float().mean(dim=0)
    torch.testing.assert_close(often, torch.tensor([0.3] * 7 + [0.0] * 3), atol=0.03, rtol=0)


def test_a_margin_of_zero_is_not_selected_in_training_either() -> None:
    equal = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]))
    assert straight_through_mask(equal, torch.ones(1, 2).bool()).tolist() == [[0.0, 1.0]]


def test_a_mask_holds_one_feature_at_least() -> None:
    assert Limits() == (1, None)

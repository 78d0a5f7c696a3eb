"""Equations 3 to 9 and 11 against numpy, written from the paper's text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rekd_edge.training import losses

FINITE = st.floats(-8, 8, width=32)


def softmax(values: np.ndarray) -> np.ndarray:
    exponential = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p ‖ q) over the last axis."""
    return (p * (np.log(p) - np.log(q))).sum(axis=-1)


@given(
    st.lists(st.integers(0, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=6),
    st.floats(0.01, 1.0),
    st.sampled_from([None, 196, 256]),
    st.sampled_from(["per_sample", "batch_mean"]),
)
def test_selection_loss_is_equation_3(
    counts: list[tuple[int, int]], target: float, reference: int | None, reduction: str
) -> None:
    differences = []
    for selected, features in counts:
        if reference is None:
            differences.append(selected - features * target)
        else:
            differences.append((selected / features - target if features else 0.0) * reference)
    squares = np.mean(differences) ** 2 if reduction == "batch_mean" else np.mean(np.square(differences))
    selected, features = torch.tensor(counts).float().T
    ours = losses.selection_loss(selected, features, target, reference, reduction)
    assert ours.item() == pytest.approx(squares, rel=1e-4, abs=1e-4)


def test_selection_loss_by_hand() -> None:
    selected, features = torch.tensor([3.0, 1.0]), torch.tensor([10.0, 20.0])  # target: 1 and 2
    assert losses.selection_loss(selected, features, 0.1, None).item() == pytest.approx((2**2 + 1**2) / 2)
    assert losses.selection_loss(selected, features, 0.1, None, "batch_mean").item() == pytest.approx(0.5**2)
    normalised = ((0.2 * 256) ** 2 + (0.05 * 256) ** 2) / 2
    assert losses.selection_loss(selected, features, 0.1, 256).item() == pytest.approx(normalised, rel=1e-5)


def test_selection_loss_of_one_feature_and_of_none() -> None:
    selected = features = torch.tensor([1.0, 0.0])
    normalised = losses.selection_loss(selected, features, 0.25, 256)
    assert normalised.item() == pytest.approx((0.75 * 256) ** 2 / 2)


@pytest.mark.parametrize(("task", "length"), [("text", 256), ("image", 196)])
def test_normalised_and_raw_selection_loss_agree_at_the_papers_length(task: str, length: int) -> None:
    selected, features = torch.tensor([3.0, 50.0, length]), torch.full((3,), float(length))
    raw = losses.selection_loss(selected, features, 0.15, None)
    torch.testing.assert_close(losses.selection_loss(selected, features, 0.15, losses.REFERENCE_FEATURES[task]), raw)


def test_selection_loss_takes_a_target_for_each_example() -> None:
    selected, features, targets = torch.tensor([2.0, 6.0]), torch.tensor([10.0, 20.0]), torch.tensor([0.1, 0.4])
    raw = losses.selection_loss(selected, features, targets, None)
    assert raw.item() == pytest.approx(((2 - 1) ** 2 + (6 - 8) ** 2) / 2)
    normalised = losses.selection_loss(selected, features, targets, 256)
    assert normalised.item() == pytest.approx(256**2 * ((0.2 - 0.1) ** 2 + (0.3 - 0.4) ** 2) / 2)


@given(arrays(np.float32, (2, 6), elements=st.floats(0, 1, width=32)), arrays(np.bool_, (2, 6)), st.booleans())
def test_contiguity_loss_is_the_mean_difference_of_neighbours(
    mask: np.ndarray, feature: np.ndarray, image: bool
) -> None:
    pairs = [(i, i + 1) for i in range(5)]
    if image:  # two rows of three: to the right, and below
        pairs = [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)]
    found = [abs(m[i] - m[j]) for m, f in zip(mask, feature, strict=True) for i, j in pairs if f[i] and f[j]]
    loss = losses.contiguity_loss(torch.from_numpy(mask), torch.from_numpy(feature), (2, 3) if image else None)
    assert loss.item() == pytest.approx(np.mean(found) if found else 0.0, abs=1e-6)


@given(arrays(np.float32, (4, 3), elements=FINITE), arrays(np.int64, 4, elements=st.integers(0, 2)), st.floats(0, 3))
def test_task_and_re_loss_are_equations_5_and_6(logits: np.ndarray, labels: np.ndarray, weight: float) -> None:
    expected = -np.log(softmax(logits.astype(np.float64)))[np.arange(4), labels].mean()
    task = losses.task_loss(torch.from_numpy(logits), torch.from_numpy(labels))
    assert task.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    re = losses.re_loss(task, torch.tensor(2.5), weight)
    assert re.item() == pytest.approx(expected + weight * 2.5, rel=1e-4, abs=1e-5)


@given(
    arrays(np.float32, (2, 3, 5, 2), elements=FINITE),
    arrays(np.bool_, (3, 5)),
    st.sampled_from([5.0, 1.0, 0.5]),
)
def test_rationale_distillation_is_equation_7(logits: np.ndarray, counted: np.ndarray, temperature: float) -> None:
    teacher, student = (softmax(z.astype(np.float64) / temperature) for z in logits)
    expected = (kl(teacher, student) * counted).sum(axis=1).mean()  # no τ²
    teacher_log, student_log = (torch.log_softmax(torch.from_numpy(z) / temperature, dim=-1) for z in logits)
    ours = losses.rationale_distillation_loss(teacher_log, student_log, torch.from_numpy(counted))
    assert ours.item() == pytest.approx(expected, rel=1e-3, abs=1e-5)


@given(arrays(np.float32, (2, 4, 3), elements=FINITE), st.sampled_from([5.0, 1.0, 0.3]))
def test_prediction_distillation_is_equation_8(logits: np.ndarray, temperature: float) -> None:
    teacher, student = (softmax(q.astype(np.float64) / temperature) for q in logits)
    q = torch.from_numpy(logits)
    ours = losses.prediction_distillation_loss(torch.log_softmax(q[0] / temperature, dim=-1), q[1], temperature)
    assert ours.item() == pytest.approx(kl(teacher, student).mean(), rel=1e-3, abs=1e-5)


@given(st.floats(0, 5), st.floats(0, 5), st.floats(0, 5), st.floats(0.1, 5), st.floats(0, 1), st.floats(0, 2))
def test_rekd_loss_is_equations_9_and_11(
    re: float, rationale: float, prediction: float, temperature: float, alpha: float, lambda_r: float
) -> None:
    terms = map(torch.tensor, (re, rationale, prediction))
    distillation = lambda_r * rationale + temperature**2 * prediction
    expected = alpha * re + (1 - alpha) * distillation
    assert losses.rekd_loss(*terms, temperature, alpha, lambda_r).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_distilling_from_oneself_costs_nothing() -> None:
    logits = torch.randn(4, 6, 2)
    log_selection = torch.log_softmax(logits, dim=-1)
    assert losses.rationale_distillation_loss(log_selection, log_selection, torch.ones(4, 6)).item() == 0
    q = logits[:, 0]
    assert losses.prediction_distillation_loss(torch.log_softmax(q / 2, dim=-1), q, 2.0).item() == pytest.approx(
        0, abs=1e-7
    )

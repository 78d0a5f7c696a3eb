"""RE's objective on outputs made by hand: its value in numpy, and the gradient that each term sends to the mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleOutput, Selection
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.inference import Predictions
from rekd_edge.training.objectives import Context, Moment, Terms, objective_of

FEATURE = np.array([[0, 1, 1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0, 0, 0]], bool)
MASK = np.array([[0, 1, 1, 0, 1, 0, 1, 0], [0, 0, 1, 0, 0, 0, 0, 0]], np.float64)
LENGTHS, SELECTED = np.array([6.0, 3.0]), np.array([4.0, 1.0])
LABELS = np.array([1, 0])
REFERENCE = {"text": 256, "image": 196}


class Scene:
    """Two examples of 6 and 3 features, of which 4 and 1 are selected."""

    def __init__(self, task: str = "text", **settings: Any) -> None:
        given = {"method": "re", "target_ratio": 0.2, "lambda_select": 0.01, **settings}
        self.config, self.task = TrainingConfig(**given).resolved(task), task
        self.logits = torch.tensor([[0.3, -1.1], [2.0, 0.5]], dtype=torch.float64, requires_grad=True)
        self.mask = torch.from_numpy(MASK).requires_grad_()
        self.margin = torch.tensor([[9.0, 1, -1, -1, -1, 2, -3, 9], [9, -1, -1, -1, 9, 9, 9, 9]])
        self.context = Context(self.config, task, ("neg", "pos"), 20)

    def terms(self) -> Terms:
        output = RationaleOutput(self.logits, self.mask, self.margin, Selection(torch.from_numpy(FEATURE)))
        batch = {"input_ids": torch.zeros(2, 8), "labels": torch.from_numpy(LABELS)}

        def model(**asked: Any) -> RationaleOutput:
            self.asked = asked
            return output

        return objective_of("re")(model, batch, Moment(1.7, 0.25, torch.ones(1)), self.context)  # type: ignore[arg-type]


def differences(scene: Scene, targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """What equation 3 squares, and for the gradient by how much a feature more changes it."""
    lengths = np.array([20.0, 20.0]) if scene.config.count_all_positions else LENGTHS
    scale = REFERENCE[scene.task] / lengths if scene.config.normalise_selection else np.ones(2)
    return np.stack([(SELECTED - lengths * targets) * scale, scale])


@pytest.mark.parametrize("task", ["text", "image"])
@pytest.mark.parametrize("reduction", ["per_sample", "batch_mean"])
@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_and_its_gradient_are_equation_6(task: str, reduction: str, normalise: bool) -> None:
    scene = Scene(task, selection_loss=reduction, normalise_selection=normalise)
    terms = scene.terms()
    logits = scene.logits.detach().numpy()
    rows = np.arange(2)
    cross_entropy = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[rows, LABELS])
    difference, scale = differences(scene, np.array([0.2, 0.2]))
    if reduction == "per_sample":
        select, slope = np.mean(difference**2), difference * scale  # d/dm of the mean of two squares
    else:
        select, slope = difference.mean() ** 2, difference.mean() * scale
    assert terms["task"].item() == pytest.approx(cross_entropy, abs=1e-9)
    assert terms["selection"].item() == pytest.approx(select, rel=1e-6)
    assert terms["loss"].item() == pytest.approx(cross_entropy + 0.01 * select, rel=1e-6)
    assert terms["re"] is terms["loss"]

    terms["loss"].backward()
    np.testing.assert_allclose(scene.mask.grad, np.repeat(0.01 * slope[:, None], 8, axis=1), rtol=1e-5)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scene.logits.grad, (probability - np.eye(2)[LABELS]) / 2, atol=1e-9)


def test_the_model_is_told_temperature_and_noise() -> None:
    scene = Scene()
    scene.terms()
    assert scene.asked["temperature"] == 1.7
    assert scene.asked["noise"].item() == 1.0


@pytest.mark.parametrize("normalise", [True, False])
def test_all_positions_count_where_that_is_asked(normalise: bool) -> None:
    scene = Scene(count_all_positions=True, normalise_selection=normalise)
    difference, _ = differences(scene, np.array([0.2, 0.2]))
    assert scene.terms()["selection"].item() == pytest.approx(np.mean(difference**2), rel=1e-6)


def test_targets_differ_by_label() -> None:
    scene = Scene(class_ratios={"neg": 0.5})  # the labels are pos, neg
    difference, _ = differences(scene, np.array([0.2, 0.5]))
    assert scene.terms()["selection"].item() == pytest.approx(np.mean(difference**2), rel=1e-6)


def test_contiguity_is_added_with_its_weight() -> None:
    without, scene = Scene().terms(), Scene(lambda_contiguity=0.3)
    terms = scene.terms()
    changes = [abs(row[t + 1] - row[t]) for row, n in zip(MASK, (6, 3), strict=True) for t in range(1, n)]
    assert len(changes) == 7
    assert terms["contiguity"].item() == pytest.approx(np.mean(changes), abs=1e-9)
    assert (terms["loss"] - without["loss"]).item() == pytest.approx(0.3 * np.mean(changes), abs=1e-6)
    assert "contiguity" not in without
    (reached,) = torch.autograd.grad(terms["contiguity"], scene.mask)
    assert reached.abs().sum() > 0


def test_ratios_are_logged_without_a_gradient() -> None:
    terms = Scene().terms()
    assert terms["sampled_ratio"].item() == pytest.approx((4 / 6 + 1 / 3) / 2)
    assert terms["argmax_ratio"].item() == pytest.approx((2 / 6 + 0 / 3) / 2)  # special tokens and padding don't count
    assert not terms["sampled_ratio"].requires_grad


@pytest.mark.parametrize("method", ["re", "rekd"])
@pytest.mark.parametrize("count_all", [False, True])
@pytest.mark.parametrize("weight", [0.01, 0.0])
def test_the_dev_loss_adds_equation_3_on_the_masks_found(method: str, count_all: bool, weight: float) -> None:
    taught = {"teacher": "teacher"} if method == "rekd" else {}
    scene = Scene(method=method, count_all_positions=count_all, lambda_select=weight, **taught)
    masks = [row[real] > 0 for row, real in zip(MASK, FEATURE, strict=True)]
    found = Predictions(np.zeros((2, 2)), [], masks, LABELS)
    difference, _ = differences(scene, np.array([0.2, 0.2]))
    terms = method_of(method).training().dev_terms(found, scene.context)
    assert terms == {"selection_penalty": pytest.approx(weight * np.mean(difference**2), rel=1e-6)}

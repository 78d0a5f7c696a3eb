"""CLS + KD: a classifier distilled from a classifier, equation 8 beside the task loss in equation 11."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rekd_edge.errors import InputError
from rekd_edge.modeling import RationaleModel
from rekd_edge.runs.layout import TARGETS
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.objectives import Context, Moment, objective_of
from rekd_edge.training.run import train
from rekd_edge.training.targets import read_targets
from rekd_edge.training.teacher import Teachers, read_teacher

ALPHA, TAU = 0.3, 1.7


def softmax(values: np.ndarray) -> np.ndarray:
    exponential = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


@pytest.fixture(params=["text", "image"])
def scene(request: Any, settings: Callable, prepared: Callable, first_batch: Callable) -> dict[str, Any]:
    """A model without dropout, and a batch with the logits of two made-up teachers."""
    config: TrainingConfig = settings(request.param, "cls", teacher="a,b", alpha=ALPHA, head_dropout=0.0)
    model, preprocessing, data = prepared(config)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    labels = tuple(data.label_names)
    logits = torch.randn(8, 2, len(labels), generator=torch.Generator().manual_seed(5))
    batch = {**first_batch(preprocessing, data), "teacher_logits": logits}
    return {"model": model.train(), "batch": batch, "context": Context(config.resolved(data.task), data.task, labels)}


def terms_of(scene: dict[str, Any], temperature: float = TAU, progress: float = 0.0, **changes: Any) -> Any:
    """The terms, the student's logits and the gradient of the classifier's bias: the sum of the logits' gradients."""
    model: RationaleModel = scene["model"]
    context = replace(scene["context"], config=replace(scene["context"].config, **changes))
    model.zero_grad()
    terms = objective_of("cls")(model, scene["batch"], Moment(temperature, progress), context)
    terms["loss"].backward()
    bias = model.predictor.classifier[1].bias.grad
    assert bias is not None
    inputs = {name: value for name, value in scene["batch"].items() if name in ("input_ids", "attention_mask")}
    inputs |= {name: value for name, value in scene["batch"].items() if name == "pixel_values"}
    return terms, model(**inputs).logits.detach().double().numpy(), bias.double().numpy()


def expected(batch: dict[str, Tensor], q: np.ndarray, tau: float, alpha: float) -> tuple[float, float, np.ndarray]:
    """Task loss, KL and the gradient of the whole, in numpy."""
    labels, rows = batch["labels"].numpy(), np.arange(len(q))
    teachers = softmax(batch["teacher_logits"].double().numpy() / tau).mean(axis=1)
    task = -np.log(softmax(q))[rows, labels].mean()
    student = softmax(q / tau)
    divergence = (teachers * (np.log(teachers) - np.log(student))).sum(axis=1).mean()
    of_task = (softmax(q) - np.eye(q.shape[1])[labels]).mean(axis=0)
    of_labels = tau**2 * ((student - teachers) / tau).mean(axis=0)
    return task, divergence, alpha * of_task + (1 - alpha) * of_labels


@pytest.mark.parametrize(("fixed", "tau"), [(None, TAU), (1.0, 1.0), (4.0, 4.0)])
def test_loss_and_gradient_against_numpy(scene: dict[str, Any], fixed: float | None, tau: float) -> None:
    terms, q, gradient = terms_of(scene, kd_temperature=fixed)
    task, divergence, wanted = expected(scene["batch"], q, tau, ALPHA)
    assert terms["task"].item() == pytest.approx(task, rel=1e-5)
    assert terms["kd_prediction"].item() == pytest.approx(divergence, rel=1e-4)
    assert terms["loss"].item() == pytest.approx(ALPHA * task + (1 - ALPHA) * tau**2 * divergence, rel=1e-4)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_each_term_has_a_gradient_of_its_own(scene: dict[str, Any], alpha: float) -> None:
    _, q, gradient = terms_of(scene, alpha=alpha)
    wanted = expected(scene["batch"], q, TAU, alpha)[2]
    assert np.abs(wanted).max() > 1e-3
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-6)


def test_alpha_may_move_with_the_steps(scene: dict[str, Any]) -> None:
    terms, q, _ = terms_of(scene, progress=0.25, alpha=0.0, alpha_end=1.0)
    task, divergence, _ = expected(scene["batch"], q, TAU, 0.25)
    assert terms["loss"].item() == pytest.approx(0.25 * task + 0.75 * TAU**2 * divergence, rel=1e-4)


def test_hard_labels_are_the_teachers_decisions(scene: dict[str, Any]) -> None:
    terms, q, _ = terms_of(scene, teacher_labels="hard")
    chosen = scene["batch"]["teacher_logits"].argmax(dim=-1).numpy()  # [rows, teachers]
    share = np.stack([(chosen == label).mean(axis=1) for label in range(q.shape[1])], axis=1)
    student = np.log(softmax(q / TAU))
    divergence = np.where(share > 0, share * (np.log(np.maximum(share, 1e-30)) - student), 0).sum(axis=1).mean()
    assert terms["kd_prediction"].item() == pytest.approx(divergence, rel=1e-4)


@pytest.mark.parametrize("task", ["text", "image"])
def test_a_distilled_classifier_learns_from_stored_targets(
    task: str, runs: Callable[..., Path], settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = runs(task, "cls")
    config = settings(task, "cls", teacher=str(teacher), alpha=0.0, kd_temperature=1.0, seed=5, teacher_mask="student")
    asked: list[int] = []
    answer = Teachers.targets
    monkeypatch.setattr(Teachers, "targets", lambda *given: (asked.append(1), answer(*given))[1])
    train(config, tmp_path / "student")
    assert len(asked) == 1  # 64 examples once, and no step of two epochs
    (store,) = (folder for folder in (tmp_path / TARGETS).iterdir() if folder.is_dir())
    assert read_targets(store).keys() == {"teacher_logits"}
    record = json.loads((tmp_path / "student" / "training.json").read_text())
    assert record["recipe"]["teacher_mask"] == "own"
    assert record["recipe"]["teacher"] == str(teacher)


def test_who_may_teach_whom(runs: Callable[..., Path], settings: Callable, tmp_path: Path) -> None:
    rationalist, classifier = str(runs("text", "re")), str(runs("text", "cls"))
    with pytest.raises(InputError, match=r"is a re run; cls learns from a run of --method cls"):
        train(settings("text", "cls", teacher=rationalist), tmp_path / "run")
    with pytest.raises(InputError, match=r"is a cls run and selects nothing; train it with --method re"):
        train(settings("text", "rekd", teacher=classifier), tmp_path / "run")
    with pytest.raises(InputError, match="no rationale to distil"):
        settings("text", "cls", teacher=classifier, distil="rationale")
    assert not (tmp_path / "run").exists()
    assert read_teacher(classifier, allow_weak=False, student="cls").config.method == "cls"  # it needs no control

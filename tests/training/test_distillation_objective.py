"""The distillation loss of REKD (equation 11) and its variants, put together again in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from objective_calls import TEMPERATURE, StoredTeacher, array, l_kd, l_re, run, softmax, with_teachers
from torch import Tensor

from rekd_edge.modeling import RationaleOutput
from rekd_edge.modeling.selection import gumbel_noise
from rekd_edge.training.objectives import Moment


@pytest.mark.parametrize("noise", ["independent", "shared"])
@pytest.mark.parametrize("cached", [True, False])
def test_rekd_minimises_equation_11(scene: dict[str, Any], noise: str, cached: bool) -> None:
    answer = with_teachers(scene)
    z, q = answer["teacher_selection_logits"][:, :, 0], answer["teacher_logits"][:, 0]
    teacher, batch = StoredTeacher(answer), scene["batch"]
    if cached:
        batch = {**batch, **answer}
    terms, output, context = run(scene, "rekd", batch, gumbel_noise=noise, alpha=0.4, lambda_r=0.7, teacher=teacher)
    # the generator of random numbers now stands where the objective drew the teacher's noise
    teacher_noise = output.selection.noise if noise == "shared" else gumbel_noise(z)
    assert noise == "shared" or not torch.equal(teacher_noise, output.selection.noise)
    rationale, prediction, distillation = l_kd(output, z, q, teacher_noise, array(output.selection.feature), 0.7)
    assert terms["kd_rationale"].item() == pytest.approx(rationale, rel=1e-4)
    assert terms["kd_prediction"].item() == pytest.approx(prediction, rel=1e-4)
    expected = 0.4 * l_re(output, batch["labels"], context) + 0.6 * distillation
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-4)
    assert teacher.masks == ([] if cached else [None])


def distilled_loss(
    output: RationaleOutput, answer: dict[str, Tensor], terms: dict[str, Tensor], weights: tuple[float, float, float]
) -> float:
    alpha, rationale, prediction = weights
    kd = rationale * terms["kd_rationale"].item() + prediction * terms["kd_prediction"].item()
    return alpha * terms["re"].item() + (1 - alpha) * kd


@pytest.mark.parametrize(
    ("changes", "progress", "weights"),
    [
        ({"alpha": 0.0}, 0.5, (0.0, 0.7, TEMPERATURE**2)),
        ({"distil": "rationale"}, 0.5, (0.4, 0.7, 0.0)),
        ({"distil": "prediction"}, 0.5, (0.4, 0.0, TEMPERATURE**2)),
        ({"alpha": 0.1, "alpha_end": 0.9}, 0.25, (0.3, 0.7, TEMPERATURE**2)),
        ({"alpha": 0.1, "alpha_end": 0.9}, 1.0, (0.9, 0.7, TEMPERATURE**2)),
    ],
)
def test_ablations_weigh_the_terms_of_equation_11(
    scene: dict[str, Any], changes: dict[str, Any], progress: float, weights: tuple[float, float, float]
) -> None:
    answer = with_teachers(scene)
    settings = {"alpha": 0.4, "lambda_r": 0.7, **changes}
    moment = Moment(TEMPERATURE, progress)
    terms, output, _ = run(scene, "rekd", teacher=StoredTeacher(answer), moment=moment, **settings)
    assert terms["loss"].item() == pytest.approx(distilled_loss(output, answer, terms, weights), rel=1e-5)


def test_fixed_temperature_is_that_of_equations_7_and_8_alone(scene: dict[str, Any]) -> None:
    answer = with_teachers(scene)
    z, q = answer["teacher_selection_logits"][:, :, 0], answer["teacher_logits"][:, 0]
    changes = {"kd_temperature": 2.5, "alpha": 0.4, "lambda_r": 0.7, "gumbel_noise": "shared"}
    terms, output, context = run(scene, "rekd", teacher=StoredTeacher(answer), **changes)
    noise, feature = output.selection.noise, array(output.selection.feature)
    rationale, prediction, distillation = l_kd(output, z, q, noise, feature, 0.7, temperature=2.5)
    assert terms["kd_rationale"].item() == pytest.approx(rationale, rel=1e-4)
    assert terms["kd_prediction"].item() == pytest.approx(prediction, rel=1e-4)
    re = l_re(output, scene["batch"]["labels"], context)  # the mask is drawn at the annealed temperature
    assert terms["loss"].item() == pytest.approx(0.4 * re + 0.6 * distillation, rel=1e-4)


def test_hard_labels_are_cross_entropies_with_the_teachers_decisions(scene: dict[str, Any]) -> None:
    answer = with_teachers(scene)
    terms, output, _ = run(scene, "rekd", teacher=StoredTeacher(answer), teacher_labels="hard")
    student = softmax((array(output.selection.logits) + array(output.selection.noise)) / TEMPERATURE)
    chosen = answer["teacher_mask"][..., 0].long().numpy()
    each = -np.log(np.take_along_axis(student, chosen[..., None], axis=-1))[..., 0] * array(output.selection.feature)
    assert terms["kd_rationale"].item() == pytest.approx(each.sum(axis=1).mean(), rel=1e-4)
    labels = answer["teacher_logits"][:, 0].argmax(dim=-1).numpy()
    classes = softmax(array(output.logits) / TEMPERATURE)[np.arange(len(labels)), labels]
    assert terms["kd_prediction"].item() == pytest.approx(-np.log(classes).mean(), rel=1e-4)


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_several_teachers_are_averaged_as_distributions(scene: dict[str, Any], labels: str) -> None:
    answer = with_teachers(scene, 3)
    changes = {"gumbel_noise": "shared", "teacher_labels": labels}
    terms, output, _ = run(scene, "rekd", teacher=StoredTeacher(answer), **changes)
    noise = array(output.selection.noise)[:, :, None]
    selection = softmax((array(answer["teacher_selection_logits"]) + noise) / TEMPERATURE)
    classes = softmax(array(answer["teacher_logits"]) / TEMPERATURE)
    if labels == "hard":
        selection = np.eye(2)[answer["teacher_mask"].long().numpy()]
        classes = np.eye(classes.shape[-1])[answer["teacher_logits"].argmax(dim=-1).numpy()]
    student = softmax((array(output.selection.logits) + array(output.selection.noise)) / TEMPERATURE)

    def kl(target: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (target * (np.log(np.maximum(target, 1e-300)) - np.log(other))).sum(axis=-1)

    rationale = (kl(selection.mean(axis=2), student) * array(output.selection.feature)).sum(axis=1).mean()
    prediction = kl(classes.mean(axis=1), softmax(array(output.logits) / TEMPERATURE)).mean()
    assert terms["kd_rationale"].item() == pytest.approx(rationale, rel=1e-4)
    assert terms["kd_prediction"].item() == pytest.approx(prediction, rel=1e-4)


def test_students_mask_is_shown_to_the_teacher_only_where_asked(scene: dict[str, Any]) -> None:
    teacher = StoredTeacher(with_teachers(scene))
    _, output, _ = run(scene, "rekd", teacher_mask="student", teacher=teacher)
    assert torch.equal(teacher.masks[0], output.mask)


def test_of_stored_targets_the_labels_alone_depend_on_the_students_mask(scene: dict[str, Any]) -> None:
    answer = with_teachers(scene)
    teacher = StoredTeacher({"teacher_logits": answer["teacher_logits"].flip(-1)})
    batch = {**scene["batch"], **answer}
    terms, output, _ = run(scene, "rekd", batch, teacher_mask="student", gumbel_noise="shared", teacher=teacher)
    (shown,) = teacher.masks
    assert torch.equal(shown, output.mask)
    expected, _, _ = run(scene, "rekd", {**batch, **teacher.answer}, gumbel_noise="shared")
    stored, _, _ = run(scene, "rekd", batch, gumbel_noise="shared")
    assert terms["kd_rationale"] == expected["kd_rationale"] == stored["kd_rationale"]
    assert terms["kd_prediction"] == expected["kd_prediction"] != stored["kd_prediction"]

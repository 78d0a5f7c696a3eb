"""What a teacher adds, on outputs made by hand: equations 7 to 11 in numpy, and the gradient that each term sends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rekd_edge.modeling import RationaleOutput, Selection
from rekd_edge.modeling.selection import gumbel_log_softmax, gumbel_noise
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.objectives import PREDICTOR, Context, Moment, Terms, objective_of
from rekd_edge.training.objectives.distillation import distilled, distilled_prediction, has_teachers

Floats = NDArray[np.float64]
TAU = 1.7
FEATURE = np.array([[0, 1, 1, 1, 0], [0, 1, 1, 0, 0]], bool)


def softmax(values: Floats) -> Floats:
    exponential = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def kl(p: Floats, q: Floats) -> Floats:
    return (p * (np.log(p) - np.log(q))).sum(axis=-1)


class Scene:
    """A student's selection logits, noise and labels, its own loss, and one teacher's answers or several."""

    def __init__(self, teachers: int = 1, **settings: Any) -> None:
        random = torch.Generator().manual_seed(3)
        self.z, self.noise = torch.randn(2, 5, 2, generator=random), gumbel_noise(torch.empty(2, 5, 2), random)
        self.teacher_noise = gumbel_noise(torch.empty(2, 5, 2), random)
        self.q = torch.randn(2, 3, generator=random)
        self.teacher_z = torch.randn(2, 5, teachers, 2, generator=random)
        self.teacher_q = torch.randn(2, teachers, 3, generator=random)
        self.z.requires_grad_()
        self.q.requires_grad_()
        self.own = torch.tensor(0.9, requires_grad=True)
        given = {"method": "rekd", "teacher": "teacher", "alpha": 0.4, "lambda_r": 0.7, **settings}
        self.config = TrainingConfig(**given).resolved("text")
        self.context = Context(self.config, "text", ("a", "b", "c"), 5)
        self.batch = {
            "teacher_selection_logits": self.teacher_z,
            "teacher_mask": self.teacher_z[..., 1] > self.teacher_z[..., 0],
            "teacher_logits": self.teacher_q,
        }
        feature = torch.from_numpy(FEATURE)
        log_selection = gumbel_log_softmax(self.z, self.noise, TAU)
        selection = Selection(feature, self.z, None, log_selection, self.noise)
        self.output = RationaleOutput(self.q, feature.float(), torch.zeros(2, 5), selection)

    def terms(self, progress: float = 0.5, drawn: bool = True, temperature: float | None = None) -> Terms:
        moment = Moment(TAU, progress, None, self.teacher_noise if drawn else None)
        return distilled({"loss": self.own}, self.output, self.batch, moment, self.context, temperature)

    def expected(self, noise: Tensor | None = None, tau: float = TAU) -> tuple[float, float]:
        """Equations 7 and 8."""
        noise = self.teacher_noise if noise is None else noise
        z, q, own = (each.detach().double().numpy() for each in (self.z, self.q, self.noise))
        theirs = softmax((self.teacher_z.double().numpy() + noise.double().numpy()[:, :, None]) / tau)
        student = softmax((z + own) / tau)
        rationale = (kl(theirs.mean(axis=2), student) * FEATURE).sum(axis=1).mean()
        labels = softmax(self.teacher_q.double().numpy() / tau).mean(axis=1)
        return float(rationale), float(kl(labels, softmax(q / tau)).mean())


@pytest.mark.parametrize("teachers", [1, 3])
def test_the_loss_is_equation_11_with_noise_of_the_teachers_own(teachers: int) -> None:
    scene = Scene(teachers)
    terms, (rationale, prediction) = scene.terms(), scene.expected()
    assert terms["kd_rationale"].item() == pytest.approx(rationale, rel=1e-5)
    assert terms["kd_prediction"].item() == pytest.approx(prediction, rel=1e-5)
    expected = 0.4 * 0.9 + 0.6 * (0.7 * rationale + TAU**2 * prediction)
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-5)
    with_the_students, _ = scene.expected(noise=scene.noise)
    assert abs(rationale - with_the_students) > 0.05


def test_gradients_are_those_of_equations_7_8_and_11() -> None:
    scene = Scene()
    scene.terms()["loss"].backward()
    student = softmax((scene.z.detach() + scene.noise).double().numpy() / TAU)
    teacher = softmax((scene.teacher_z[:, :, 0] + scene.teacher_noise).double().numpy() / TAU)
    by_z = (student - teacher) / TAU / 2 * FEATURE[..., None]  # d KL / d z, the mean of two examples
    np.testing.assert_allclose(scene.z.grad, 0.6 * 0.7 * by_z, atol=1e-6)
    ours, theirs = (softmax(each.double().numpy() / TAU) for each in (scene.q.detach(), scene.teacher_q[:, 0]))
    np.testing.assert_allclose(scene.q.grad, 0.6 * TAU**2 * (ours - theirs) / TAU / 2, atol=1e-6)
    assert scene.own.grad.item() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("settings", "progress", "weights"),
    [
        ({"alpha": 0.0}, 0.5, (0.0, 0.7, TAU**2)),
        ({"distil": "rationale"}, 0.5, (0.4, 0.7, 0.0)),
        ({"distil": "prediction"}, 0.5, (0.4, 0.0, TAU**2)),
        ({"alpha": 0.1, "alpha_end": 0.9}, 0.25, (0.3, 0.7, TAU**2)),
        ({"alpha": 0.1, "alpha_end": 0.9}, 1.0, (0.9, 0.7, TAU**2)),
    ],
)
def test_ablations_weigh_the_terms(
    settings: dict[str, Any], progress: float, weights: tuple[float, float, float]
) -> None:
    scene, (alpha, of_rationale, of_prediction) = Scene(**settings), weights
    rationale, prediction = scene.expected()
    expected = alpha * 0.9 + (1 - alpha) * (of_rationale * rationale + of_prediction * prediction)
    assert scene.terms(progress)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_shared_noise_is_the_students() -> None:
    scene = Scene(gumbel_noise="shared")
    assert scene.terms()["kd_rationale"].item() == pytest.approx(scene.expected(noise=scene.noise)[0], rel=1e-5)


def test_noise_that_is_not_given_is_drawn_once_for_all_teachers() -> None:
    scene = Scene(3)
    torch.manual_seed(5)
    found = scene.terms(drawn=False)["kd_rationale"].item()
    torch.manual_seed(5)
    noise = gumbel_noise(torch.empty(2, 5, 1, 2))[:, :, 0]
    assert found == pytest.approx(scene.expected(noise=noise)[0], rel=1e-5)


def test_a_student_without_noise_is_taught_without_noise() -> None:
    scene = Scene()
    selection = scene.output.selection
    log_selection = torch.log_softmax(scene.z, dim=-1)
    bare = Selection(selection.feature, scene.z, None, log_selection, None)
    scene.output = RationaleOutput(scene.q, scene.output.mask, scene.output.margin, bare)
    z, theirs = scene.z.detach().double().numpy(), scene.teacher_z[:, :, 0].double().numpy()
    expected = (kl(softmax(theirs), softmax(z)) * FEATURE).sum(axis=1).mean()
    assert scene.terms(temperature=1.0)["kd_rationale"].item() == pytest.approx(expected, rel=1e-5)


def test_a_fixed_temperature_is_that_of_both_equations() -> None:
    scene = Scene(kd_temperature=2.5)
    terms, (rationale, prediction) = scene.terms(), scene.expected(tau=2.5)
    assert terms["kd_rationale"].item() == pytest.approx(rationale, rel=1e-5)
    expected = 0.4 * 0.9 + 0.6 * (0.7 * rationale + 2.5**2 * prediction)
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_a_fixed_temperature_leaves_selections_made_at_another_alone() -> None:
    scene = Scene(kd_temperature=2.5)
    terms = scene.terms(temperature=1.3)
    z, own = scene.z.detach().double().numpy(), scene.noise.double().numpy()
    theirs = (scene.teacher_z[:, :, 0] + scene.teacher_noise).double().numpy()
    expected = (kl(softmax(theirs / 1.3), softmax((z + own) / TAU)) * FEATURE).sum(axis=1).mean()
    assert terms["kd_rationale"].item() == pytest.approx(expected, rel=1e-5)
    assert terms["kd_prediction"].item() == pytest.approx(scene.expected(tau=2.5)[1], rel=1e-5)


def test_all_positions_count_where_that_is_asked() -> None:
    scene = Scene(count_all_positions=True)
    student = softmax((scene.z.detach() + scene.noise).double().numpy() / TAU)
    teacher = softmax((scene.teacher_z[:, :, 0] + scene.teacher_noise).double().numpy() / TAU)
    assert scene.terms()["kd_rationale"].item() == pytest.approx(kl(teacher, student).sum(axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize("teachers", [1, 3])
def test_hard_labels_are_the_shares_of_the_teachers_decisions(teachers: int) -> None:
    scene = Scene(teachers, teacher_labels="hard")
    terms = scene.terms()
    selected = (scene.teacher_z[..., 1] > scene.teacher_z[..., 0]).double().numpy().mean(axis=2)
    target = np.stack([1 - selected, selected], axis=-1)
    student = softmax((scene.z.detach() + scene.noise).double().numpy() / TAU)
    each = (target * (np.log(np.maximum(target, 1e-30)) - np.log(student))).sum(axis=-1) * FEATURE
    assert terms["kd_rationale"].item() == pytest.approx(each.sum(axis=1).mean(), rel=1e-4)
    votes = np.eye(3)[scene.teacher_q.argmax(dim=-1).numpy()].mean(axis=1)
    ours = softmax(scene.q.detach().double().numpy() / TAU)
    labels = (votes * (np.log(np.maximum(votes, 1e-30)) - np.log(ours))).sum(axis=-1).mean()
    assert terms["kd_prediction"].item() == pytest.approx(labels, rel=1e-4)


def test_labels_are_taught_alone_by_equation_8() -> None:
    scene = Scene()
    terms = distilled_prediction({"loss": scene.own}, scene.output, scene.batch, scene.context, 1.3, 0.8)
    prediction = scene.expected(tau=1.3)[1]
    assert terms["kd_prediction"].item() == pytest.approx(prediction, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(0.8 * 0.9 + 0.2 * 1.3**2 * prediction, rel=1e-5)
    terms["loss"].backward()
    ours, theirs = (softmax(each.double().numpy() / 1.3) for each in (scene.q.detach(), scene.teacher_q[:, 0]))
    np.testing.assert_allclose(scene.q.grad, 0.2 * 1.3**2 * (ours - theirs) / 1.3 / 2, atol=1e-6)
    assert scene.z.grad is None


def test_labels_are_not_taught_where_rationales_alone_are_distilled() -> None:
    scene, terms = Scene(distil="rationale"), {"loss": torch.tensor(0.9)}
    assert distilled_prediction(terms, scene.output, scene.batch, scene.context, 1.3, 0.8) is terms


@pytest.mark.parametrize("fixed", [None, 2.5])
@pytest.mark.parametrize(
    ("method", "asked", "tau", "alpha"),
    [("cls", {}, TAU, 0.1 + 0.25 * 0.7), (PREDICTOR, {"fixed_masks": True}, 1.0, 0.8)],
)
def test_what_selects_nothing_is_taught_labels(
    method: str, asked: dict[str, Any], tau: float, alpha: float, fixed: float | None
) -> None:
    own = {"method": "cls", "lambda_r": 0.5} if method == "cls" else {}
    scene = Scene(kd_temperature=fixed, alpha=0.1, alpha_end=0.8, **own)
    given: list[dict[str, Any]] = []

    def model(**inputs: Any) -> RationaleOutput:
        given.append(inputs)
        return scene.output

    labels = torch.tensor([2, 0])
    batch = {"input_ids": torch.zeros(2, 5), "labels": labels}
    moment, objective = Moment(TAU, 0.25), objective_of(method)
    terms = objective(model, {**batch, **scene.batch}, moment, scene.context)  # type: ignore[arg-type]
    assert given == [{"input_ids": batch["input_ids"], **asked}]
    q = scene.q.detach().double().numpy()
    task, tau = -np.log(softmax(q))[[0, 1], labels].mean(), fixed or tau
    expected = alpha * task + (1 - alpha) * tau**2 * scene.expected(tau=tau)[1]
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-5)
    alone = objective(model, batch, moment, scene.context)  # type: ignore[arg-type]
    assert alone["loss"].item() == pytest.approx(task, rel=1e-5)


def test_rekd_mixes_l_re_with_what_it_is_taught() -> None:
    scene = Scene(target_ratio=0.2, lambda_select=0.01)
    given: list[dict[str, Any]] = []

    def model(**inputs: Any) -> RationaleOutput:
        given.append(inputs)
        return scene.output

    batch = {"input_ids": torch.zeros(2, 5), "labels": torch.tensor([2, 0])}
    moment = Moment(TAU, 0.5, scene.noise, scene.teacher_noise)
    terms = objective_of("rekd")(model, {**batch, **scene.batch}, moment, scene.context)  # type: ignore[arg-type]
    (asked,) = given
    assert asked["temperature"] == TAU
    assert asked["noise"] is scene.noise
    alone = objective_of("re")(model, batch, moment, scene.context)  # type: ignore[arg-type]
    rationale, prediction = scene.expected()
    expected = 0.4 * alone["loss"].item() + 0.6 * (0.7 * rationale + TAU**2 * prediction)
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-5)


class Asked:
    """Teachers that answer, and remember the masks that they were shown."""

    def __init__(self, answer: dict[str, Tensor]) -> None:
        self.answer = answer
        self.masks: list[Tensor | None] = []

    def targets(self, batch: dict[str, Tensor], student_mask: Tensor | None = None) -> dict[str, Tensor]:
        self.masks.append(student_mask)
        return self.answer

    def labels(self, batch: dict[str, Tensor], student_mask: Tensor) -> Tensor:
        self.masks.append(student_mask)
        return self.answer["teacher_logits"]


@pytest.mark.parametrize("mask", ["own", "student"])
@pytest.mark.parametrize("stored", [True, False])
def test_teachers_are_asked_for_what_is_not_stored(mask: str, stored: bool) -> None:
    scene, other = Scene(teacher_mask=mask), torch.tensor([[[2.0, 0, 0]], [[0, 2.0, 0]]])
    teachers = Asked({**scene.batch, "teacher_logits": other})
    asks = mask == "student" or not stored
    scene.context = Context(scene.config, "text", ("a", "b", "c"), 5, None, teachers if asks else None)  # type: ignore[arg-type]
    if not stored:
        scene.batch = {}
    assert has_teachers(scene.batch, scene.context)
    terms = scene.terms()
    assert len(teachers.masks) == asks
    if asks:
        assert teachers.masks[0] is (scene.output.mask if mask == "student" else None)
        scene.teacher_q = other
    assert terms["kd_prediction"].item() == pytest.approx(scene.expected()[1], rel=1e-5)


def test_without_targets_and_teachers_there_is_nothing_to_distil() -> None:
    assert not has_teachers({}, Scene().context)

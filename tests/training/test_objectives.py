"""Each method's loss, put together again in numpy from what the model said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rekd_edge.modeling import RationaleModel, RationaleOutput
from rekd_edge.modeling.selection import gumbel_noise
from rekd_edge.training.objectives import PREDICTOR, Context, Moment, inputs_of, objective_of

TEMPERATURE = 1.7
MOMENT = Moment(TEMPERATURE, 0.0)


def softmax(values: np.ndarray) -> np.ndarray:
    exponential = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def array(values: Tensor) -> np.ndarray:
    return values.detach().double().numpy()


class StoredTeacher:
    """Answers as teachers would, and remembers what mask it was shown."""

    def __init__(self, answer: dict[str, Tensor]) -> None:
        self.answer, self.masks = answer, []

    def targets(self, batch: dict[str, Tensor], student_mask: Tensor | None = None) -> dict[str, Tensor]:
        self.masks.append(student_mask)
        return self.answer

    def labels(self, batch: dict[str, Tensor], student_mask: Tensor) -> Tensor:
        self.masks.append(student_mask)
        return self.answer["teacher_logits"]


@pytest.fixture(params=["text", "image"])
def scene(request: Any, settings: Callable, prepared: Callable, first_batch: Callable) -> dict[str, Any]:
    """A model in training, a batch of 8, and a context; every setting at hand to be changed."""
    config = settings(request.param, "re", target_ratio=0.2, lambda_select=0.01)
    model, preprocessing, data = prepared(config)
    batch = first_batch(preprocessing, data)
    grid = None if preprocessing.image is None else preprocessing.image.grid
    context = Context(config.resolved(data.task), data.task, tuple(data.label_names), preprocessing.max_length, grid)
    return {"model": model.train(), "batch": batch, "context": context}


def run(scene: dict[str, Any], method: str, batch: dict[str, Tensor] | None = None, **changes: Any) -> Any:
    """The terms of a method, and the output that the model gave on the way, from the same seed."""
    model, context = scene["model"], scene["context"]
    teacher, moment = changes.pop("teacher", None), changes.pop("moment", MOMENT)
    context = replace(context, config=replace(context.config, **changes), teachers=teacher)
    batch = batch or scene["batch"]
    torch.manual_seed(11)
    terms = objective_of(method)(model, batch, moment, context)
    torch.manual_seed(11)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values") if name in batch}
    output = model(**inputs, temperature=TEMPERATURE)
    return terms, output, context


def cross_entropy(output: RationaleOutput, labels: Tensor) -> float:
    return -np.log(softmax(array(output.logits)))[np.arange(len(labels)), labels.numpy()].mean()


def l_re(output: RationaleOutput, labels: Tensor, context: Context) -> float:
    config, reference = context.config, {"text": 256, "image": 196}[context.task]
    lengths, chosen = array(output.selection.feature).sum(axis=1), array(output.mask).sum(axis=1)
    if config.count_all_positions and context.max_length:
        lengths = np.full_like(lengths, context.max_length)
    difference = chosen - lengths * config.target_ratio
    if config.normalise_selection:
        difference = difference / lengths * reference
    per_sample = config.selection_loss == "per_sample"
    select = (difference**2).mean() if per_sample else difference.mean() ** 2
    return cross_entropy(output, labels) + config.lambda_select * select


def test_cls_minimises_the_task_loss(scene: dict[str, Any], settings: Callable, prepared: Callable) -> None:
    model, _, _ = prepared(settings(scene["context"].task, "cls"))
    terms, output, _ = run({**scene, "model": model.train()}, "cls")
    assert output.mask[output.selection.feature].all()
    assert terms["loss"].item() == pytest.approx(cross_entropy(output, scene["batch"]["labels"]), rel=1e-5)


@pytest.mark.parametrize("selection_loss", ["per_sample", "batch_mean"])
@pytest.mark.parametrize("normalise", [True, False])
def test_re_minimises_equation_6(scene: dict[str, Any], selection_loss: str, normalise: bool) -> None:
    changes = {"selection_loss": selection_loss, "normalise_selection": normalise}
    terms, output, context = run(scene, "re", **changes)
    assert terms["loss"].item() == pytest.approx(l_re(output, scene["batch"]["labels"], context), rel=1e-4)
    feature = array(output.selection.feature)
    sampled = (array(output.mask) * feature).sum(axis=1) / feature.sum(axis=1)
    assert terms["sampled_ratio"].item() == pytest.approx(sampled.mean(), rel=1e-5)
    argmax = [np.mean(array(row[real]) > 0) for row, real in zip(output.margin, output.selection.feature, strict=True)]
    assert terms["argmax_ratio"].item() == pytest.approx(np.mean(argmax), abs=1e-6)


def with_teachers(scene: dict[str, Any], count: int = 1) -> dict[str, Tensor]:
    """What so many teachers say of the batch: random logits."""
    random = torch.Generator().manual_seed(5)
    model, batch = scene["model"], scene["batch"]
    feature, _ = model.feature_positions(*_inputs(batch))
    z = torch.randn(*feature.shape, count, 2, generator=random)
    q = torch.randn(len(feature), count, len(model.config.labels), generator=random)
    return {"teacher_selection_logits": z, "teacher_mask": z[..., 1] > z[..., 0], "teacher_logits": q}


def l_kd(
    output: RationaleOutput,
    z: Tensor,
    q: Tensor,
    noise: Tensor,
    counted: np.ndarray,
    lambda_r: float,
    temperature: float = TEMPERATURE,
) -> Any:
    teacher = softmax((array(z) + array(noise)) / temperature)
    student = softmax((array(output.selection.logits) + array(output.selection.noise)) / temperature)
    rationale = ((teacher * np.log(teacher / student)).sum(axis=-1) * counted).sum(axis=1).mean()
    soft_teacher, soft_student = softmax(array(q) / temperature), softmax(array(output.logits) / temperature)
    prediction = (soft_teacher * np.log(soft_teacher / soft_student)).sum(axis=-1).mean()
    return rationale, prediction, lambda_r * rationale + temperature**2 * prediction


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


def test_shape_of_the_rationale_enters_the_loss(scene: dict[str, Any]) -> None:
    labels, context = scene["batch"]["labels"], scene["context"]
    ratios = {name: 0.1 + 0.02 * i for i, name in enumerate(context.labels)}
    terms, output, context = run(scene, "re", lambda_contiguity=0.3, class_ratios=ratios)
    targets = np.array([0.1 + 0.02 * label for label in labels.tolist()])
    chosen, lengths = array(output.mask).sum(axis=1), array(output.selection.feature).sum(axis=1)
    reference = {"text": 256, "image": 196}[context.task]
    select = (((chosen / lengths - targets) * reference) ** 2).mean()
    grid = output.mask.unflatten(1, context.grid or (1, -1)).detach()
    real = output.selection.feature.unflatten(1, context.grid or (1, -1))
    changes = [
        (grid.diff(dim=axis).abs()[(real.narrow(axis, 0, n) & real.narrow(axis, 1, n))])
        for axis, n in ((1, grid.shape[1] - 1), (2, grid.shape[2] - 1))
    ]
    total = torch.cat([each.flatten() for each in changes]).mean().item()
    expected = cross_entropy(output, labels) + 0.01 * select + 0.3 * total
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-4)


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


@pytest.mark.parametrize("told", [{}, {"distil": "rationale"}, None])
def test_a_predictor_alone_learns_labels_and_its_teachers(scene: dict[str, Any], told: dict[str, Any] | None) -> None:
    answer, batch = with_teachers(scene), scene["batch"]
    teacher = None if told is None else StoredTeacher(answer)
    terms, _, _ = run(scene, PREDICTOR, teacher=teacher, alpha=0.4, **(told or {}))
    torch.manual_seed(11)
    output = scene["model"](**inputs_of(batch), fixed_masks=True)
    chosen = (output.margin > 0) & output.selection.feature
    best = torch.nn.functional.one_hot(output.margin.argmax(dim=1), chosen.shape[1]).bool()
    assert torch.equal(output.mask.bool(), torch.where(chosen.any(dim=1, keepdim=True), chosen, best))
    expected = cross_entropy(output, batch["labels"])
    if told == {}:
        theirs, ours = softmax(array(answer["teacher_logits"][:, 0])), softmax(array(output.logits))
        expected = 0.4 * expected + 0.6 * (theirs * np.log(theirs / ours)).sum(axis=-1).mean()
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_counting_all_positions_takes_padding_into_every_sum(
    settings: Callable, prepared: Callable, first_batch: Callable
) -> None:
    config = settings("text", "re", target_ratio=0.2, lambda_select=0.01, count_all_positions=True, data__max_length=90)
    model, preprocessing, data = prepared(config)
    batch = first_batch(preprocessing, data, pad_to_max_length=True)
    assert batch["input_ids"].shape[1] == 90
    context = Context(config.resolved("text"), "text", tuple(data.label_names), 90)
    scene = {"model": model.train(), "batch": batch, "context": context}
    answer = with_teachers(scene)
    z, q = answer["teacher_selection_logits"][:, :, 0], answer["teacher_logits"][:, 0]
    batch = {**batch, **answer}
    terms, output, context = run(scene, "rekd", batch, gumbel_noise="shared", alpha=0.5, lambda_r=1.0)
    assert terms["re"].item() == pytest.approx(l_re(output, batch["labels"], context), rel=1e-4)
    assert (output.mask[~output.selection.feature] == 1).any()
    rationale, _, _ = l_kd(output, z, q, output.selection.noise, np.ones(z.shape[:2]), 1.0)
    assert terms["kd_rationale"].item() == pytest.approx(rationale, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "progress", "ratio"),
    [
        *[("descent", progress, ratio) for progress, ratio in ((0.0, 1.0), (0.25, 0.6), (0.5, 0.2), (1.0, 0.2))],
        *[("fixed", 0.0, 0.2), ("fixed", 0.75, 0.2), ("none", 0.25, 0.6)],
    ],
)
def test_control_narrows_its_random_masks_to_the_target_in_the_first_half_or_keeps_it(
    scene: dict[str, Any], settings: Callable, prepared: Callable, kind: str, progress: float, ratio: float
) -> None:
    config = settings(scene["context"].task, "control", target_ratio=0.2, comparison_control=kind)
    model, _, _ = prepared(config)
    shown = []
    classify = model.classify
    model.classify = lambda inputs, attention, mask, selection: (
        shown.append(mask) or classify(inputs, attention, mask, selection)
    )
    context = replace(scene["context"], config=config)
    terms = objective_of("control")(model.train(), scene["batch"], Moment(1.0, progress), context)
    share = model.feature_positions(*_inputs(scene["batch"]))[0].sum(dim=1) * ratio
    selected = shown[0].sum(dim=1)
    assert ((selected == share.floor()) | (selected == share.ceil())).all()
    assert terms["loss"].requires_grad


def test_gradients_reach_generator_and_predictor(scene: dict[str, Any]) -> None:
    model: RationaleModel = scene["model"]
    for method, teacher in (("re", None), ("rekd", StoredTeacher(with_teachers(scene)))):
        model.zero_grad()
        terms, _, _ = run(scene, method, teacher=teacher)
        terms["loss"].backward()
        for name, weight in model.named_parameters():
            if "position_embeddings" not in name and "key.bias" not in name and "k_proj.bias" not in name:
                assert weight.grad is not None, name
                assert weight.grad.abs().max() > 0, name


def _inputs(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    return batch.get("input_ids", batch.get("pixel_values")), batch.get("attention_mask")

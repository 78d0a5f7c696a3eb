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
from rekd_edge.training.objectives import Context, Moment, objective_of

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
    teacher = changes.pop("teacher", None)
    context = replace(context, config=replace(context.config, **changes), teachers=teacher)
    batch = batch or scene["batch"]
    torch.manual_seed(11)
    terms = objective_of(method)(model, batch, MOMENT, context)
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


def l_kd(output: RationaleOutput, z: Tensor, q: Tensor, noise: Tensor, counted: np.ndarray, lambda_r: float) -> Any:
    teacher = softmax((array(z) + array(noise)) / TEMPERATURE)
    student = softmax((array(output.selection.logits) + array(output.selection.noise)) / TEMPERATURE)
    rationale = ((teacher * np.log(teacher / student)).sum(axis=-1) * counted).sum(axis=1).mean()
    soft_teacher, soft_student = softmax(array(q) / TEMPERATURE), softmax(array(output.logits) / TEMPERATURE)
    prediction = (soft_teacher * np.log(soft_teacher / soft_student)).sum(axis=-1).mean()
    return rationale, prediction, lambda_r * rationale + TEMPERATURE**2 * prediction


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


def test_students_mask_is_shown_to_the_teacher_only_where_asked(scene: dict[str, Any]) -> None:
    teacher = StoredTeacher(with_teachers(scene))
    _, output, _ = run(scene, "rekd", teacher_mask="student", teacher=teacher)
    assert torch.equal(teacher.masks[0], output.mask)


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


@pytest.mark.parametrize(("progress", "ratio"), [(0.0, 1.0), (0.25, 0.6), (0.5, 0.2), (1.0, 0.2)])
def test_control_narrows_its_random_masks_to_the_target_in_the_first_half(
    scene: dict[str, Any], settings: Callable, prepared: Callable, progress: float, ratio: float
) -> None:
    config = settings(scene["context"].task, "control", target_ratio=0.2)
    model, _, _ = prepared(config)
    shown = []
    classify = model.classify
    model.classify = lambda inputs, attention, mask, selection: (
        shown.append(mask) or classify(inputs, attention, mask, selection)
    )
    terms = objective_of("control")(model.train(), scene["batch"], Moment(1.0, progress), scene["context"])
    feature = model.feature_positions(*_inputs(scene["batch"]))[0].sum(dim=1)
    assert shown[0].sum(dim=1).tolist() == (feature * ratio).round().tolist()
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

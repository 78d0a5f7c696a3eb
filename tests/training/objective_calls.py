"""What the objectives' tests share: terms of a method and its equations in numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rekd_edge.modeling import RationaleOutput
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

    def labels(self, batch: dict[str, Tensor], student_mask: Tensor) -> Tensor:
        self.masks.append(student_mask)
        return self.answer["teacher_logits"]


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


def with_teachers(scene: dict[str, Any], count: int = 1) -> dict[str, Tensor]:
    """What so many teachers say of the batch: random logits."""
    random = torch.Generator().manual_seed(5)
    model, batch = scene["model"], scene["batch"]
    feature, _ = model.feature_positions(*inputs_and_mask(batch))
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


def inputs_and_mask(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    return batch.get("input_ids", batch.get("pixel_values")), batch.get("attention_mask")

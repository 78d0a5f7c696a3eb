"""Predictions of a torch model over a data set, calibrated on the way where asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rekd_edge.evaluation import classification_metrics, rationale_ratio
from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleConfig, RationaleModel, Sampling, Selection
from rekd_edge.modeling.selection import Limits, random_mask
from rekd_edge.training import losses
from rekd_edge.training.calibration import calibrated_bias
from rekd_edge.training.objectives import Context

__all__ = ["Masks", "Predictions", "batches", "control_masks", "dev_metrics", "predict"]

Masks = Literal["deterministic", "sampled"]
"""The masks of the device, or those that training draws."""
CONTROL_DRAWS = 3
"""Random masks drawn per example when a control is measured."""


@dataclass
class Predictions:
    """What a model says of every example, in the data set's order; per-feature arrays hold features only."""

    logits: np.ndarray
    """float32 [examples, classes]."""
    margins: list[np.ndarray]
    """float32 [features] each, with the calibrated bias."""
    masks: list[np.ndarray]
    """bool [features] each."""
    labels: np.ndarray
    """int64 [examples]."""
    rationale_logits: np.ndarray | None = None
    """float32 [examples, classes] from the masks alone, of a method that decides from more than that."""


def batches(dataset: Dataset, collate: Callable[[list[Any]], dict[str, Tensor]], size: int) -> DataLoader:
    """The data set in order, in batches."""
    return DataLoader(dataset, batch_size=size, shuffle=False, collate_fn=collate)


@torch.no_grad()
def predict(
    model: RationaleModel,
    loader: Iterable[dict[str, Tensor]],
    calibrate: bool = False,
    masks: Masks = "deterministic",
) -> Predictions:
    """Run a model in `eval()` over a data set.

    Args:
        model: any rationale model; a control gets random masks from a fixed seed, `CONTROL_DRAWS` times each example.
        loader: batches as the collators give them, the same each time it is iterated.
        calibrate: first set the model's biases so that the mean rationale ratio over this data comes closest to the
            target.
        masks: `deterministic`, or `sampled` from the uncalibrated margins with noise from a fixed seed. What a method
            does not sample stays deterministic.
    """
    was_training, config, device = model.training, model.config, next(model.parameters()).device
    model.eval()

    def select_all() -> list[Selection]:
        return [model.select(*_inputs(batch, device)) for batch in loader]

    # the generator's pass comes first: the bias is known only when all margins are
    selections = (
        model.calibrate(select_all, partial(_solve_bias, config)) if calibrate and config.selects else select_all()
    )
    random = torch.Generator().manual_seed(0)
    logits, shown, labels, alone = [], [], [], []

    for batch, selection in zip(loader, selections, strict=True):
        inputs, attention_mask = _inputs(batch, device)

        for mask in _masks(model, inputs, attention_mask, selection, masks, random):
            logits.append(model.classify(inputs, attention_mask, mask, selection).cpu().numpy())
            shown += _rows(mask, selection.feature)
            labels.append(batch["labels"].numpy())
            if (seen := model.rationale_logits(inputs, attention_mask, mask)) is not None:
                alone.append(seen.cpu().numpy())

    model.train(was_training)
    return Predictions(
        np.concatenate(logits),
        _margins(model, selections),
        shown,
        np.concatenate(labels),
        np.concatenate(alone) if alone else None,
    )


def _solve_bias(
    config: RationaleConfig,
    selected: list[tuple[Tensor, Tensor, Tensor, Tensor | None]],
    target_ratio: float,
    limits: Limits | None = None,
    slack: float = 0.0,
) -> float:
    """The calibrated bias of margins, features, candidates and units that a model selected, batch by batch."""
    minimum, maximum = limits or Limits(config.min_selected, config.max_selected)
    margins, lengths, units = [], [], []

    for margin, feature, candidate, unit in selected:
        margins += _rows(margin, candidate)
        units += [] if unit is None else _rows(unit, candidate)
        lengths += feature.sum(dim=-1).tolist()

    if config.count_all_positions and config.max_length is not None:
        lengths = [config.max_length] * len(margins)

    return calibrated_bias(margins, target_ratio, lengths, minimum, maximum, slack, units or None)


def _masks(
    model: RationaleModel,
    inputs: Tensor,
    attention_mask: Tensor | None,
    selection: Selection,
    masks: Masks,
    random: torch.Generator,
) -> list[Tensor]:
    """What a batch is measured with, bool [batch, features]: one mask an example, or several random ones of a control.

    `random` is drawn from on the CPU, so that masks depend on no device.
    """
    feature = selection.feature
    if method_of(model.config.method).is_control:
        return [mask.to(feature.device) for mask in control_masks(feature.cpu(), model.config.target_ratio, random)]

    if masks == "sampled" and (noise := sampling_noise(model, feature.cpu(), random)) is not None:
        sampled = model.select(inputs, attention_mask, Sampling(noise=noise.to(feature.device))).sampled
        assert sampled is not None
        return [sampled > 0]

    return [model.deterministic_mask(model.margin(selection), selection)]


def control_masks(feature: Tensor, ratio: float, random: torch.Generator) -> list[Tensor]:
    """`CONTROL_DRAWS` random masks of a batch, bool [batch, features] each.

    Numbers are drawn example by example, so that an example's masks depend on its place in the data, not on what shares
    its batch or on padding.
    """
    score, rounding = torch.zeros(CONTROL_DRAWS, *feature.shape), torch.zeros(CONTROL_DRAWS, len(feature))
    for row, real in enumerate(feature):
        numbers = torch.rand(CONTROL_DRAWS, int(real.sum()) + 1, generator=random)
        score[:, row, real] = numbers[:, 1:]
        rounding[:, row] = numbers[:, 0]

    draws = zip(score, rounding, strict=True)
    return [random_mask(feature, ratio, score=score, rounding=rounding) for score, rounding in draws]


def sampling_noise(model: RationaleModel, feature: Tensor, random: torch.Generator) -> Tensor | None:
    """What `model.draw_noise` gives for a batch, 0 where a position is not a feature; None where it draws nothing.

    Numbers are drawn example by example, as in `control_masks`.
    """
    noise = None
    for row, real in enumerate(feature):
        drawn = model.draw_noise(1, int(real.sum()), random)  # [1, ..., features, 2]
        if drawn is None:
            return None
        if noise is None:
            noise = drawn.new_zeros(len(feature), *drawn.shape[1:-2], feature.shape[1], drawn.shape[-1])

        noise[row][..., real, :] = drawn[0]

    return noise


def dev_metrics(predictions: Predictions, config: RationaleConfig, context: Context) -> dict[str, Any]:
    """Accuracy, rationale ratio and loss with the masks of the predictions.

    `loss` is the task loss and what the method's `dev_terms` add: L_RE (equation 6) for `re` and `rekd`.
    """
    length = config.max_length if config.count_all_positions else None
    masks, labels = predictions.masks, predictions.labels
    task = float(losses.task_loss(torch.from_numpy(predictions.logits), torch.from_numpy(labels)))
    metrics: dict[str, Any] = {
        **classification_metrics(predictions.logits.argmax(axis=1), labels),
        "rationale_ratio": rationale_ratio(masks, length),
        "loss": task,
        "task_loss": task,
    }

    if config.selects:
        dev_terms = getattr(method_of(config.method).training(), "dev_terms", None)
        terms = {} if dev_terms is None else dev_terms(predictions, context)
        uncalibrated = [margin - config.margin_bias > 0 for margin in predictions.margins]
        metrics |= {
            "loss": task + sum(terms.values()),
            **terms,
            # where each class has a bias of its own, there is no one margin without it
            **({} if "class_biases" in config.options else {"argmax_ratio": rationale_ratio(uncalibrated, length)}),
            "margin_bias": config.margin_bias,
        }

    if predictions.rationale_logits is not None:
        metrics["rationale_accuracy"] = float(np.mean(predictions.rationale_logits.argmax(axis=1) == labels))

    if context.config.class_ratios:
        metrics["rationale_ratio_by_label"] = {
            name: rationale_ratio([mask for mask, label in zip(masks, labels, strict=True) if label == i], length)
            for i, name in enumerate(config.labels)
        }

    return metrics


def _inputs(batch: dict[str, Tensor], device: torch.device) -> tuple[Tensor, Tensor | None]:
    if "pixel_values" in batch:
        return batch["pixel_values"].to(device), None
    return batch["input_ids"].to(device), batch["attention_mask"].to(device)


def _margins(model: RationaleModel, selections: list[Selection]) -> list[np.ndarray]:
    return [row for selection in selections for row in _rows(model.margin(selection), selection.feature)]


def _rows(values: Tensor, feature: Tensor) -> list[np.ndarray]:
    """The features of each row of [batch, features]."""
    pairs = zip(values.cpu().numpy(), feature.cpu().numpy(), strict=True)
    return [row[real] for row, real in pairs]

"""Deterministic predictions of a torch model over a data set, calibrated on the way where asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rekd_edge.evaluation import classification_metrics, rationale_ratio
from rekd_edge.modeling import RationaleConfig, RationaleModel, Selection
from rekd_edge.modeling.selection import deterministic_mask, random_mask
from rekd_edge.training import losses
from rekd_edge.training.calibration import calibrated_bias
from rekd_edge.training.objectives import Context, selection_term

__all__ = ["Predictions", "batches", "dev_metrics", "predict"]

CONTROL_DRAWS = 3
"""Random masks drawn per example when a control is measured."""


@dataclass
class Predictions:
    """What a model says of every example, in the data set's order; per-feature arrays hold features only."""

    logits: np.ndarray
    """float32 [examples, classes]."""
    margins: list[np.ndarray]
    """float32 [features] each, without the calibrated bias."""
    masks: list[np.ndarray]
    """bool [features] each."""
    labels: np.ndarray
    """int64 [examples]."""


def batches(dataset: Dataset, collate: Callable[[list[Any]], dict[str, Tensor]], size: int) -> DataLoader:
    """The data set in order, in batches."""
    return DataLoader(dataset, batch_size=size, shuffle=False, collate_fn=collate)


@torch.no_grad()
def predict(
    model: RationaleModel, loader: Iterable[dict[str, Tensor]], calibrate_to: float | None = None
) -> Predictions:
    """Run a model in `eval()` over a data set.

    Args:
        model: any rationale model; a control gets random masks from a fixed seed, `CONTROL_DRAWS` times each example.
        loader: batches as the collators give them, the same each time it is iterated.
        calibrate_to: first set the model's margin bias so that the mean rationale ratio over this data comes closest
            to this target.
    """
    was_training, config, device = model.training, model.config, next(model.parameters()).device
    model.eval()
    # the generator's pass comes first: the bias is known only when all margins are
    selections = [model.select(*_inputs(batch, device)) for batch in loader]
    if calibrate_to is not None and model.generator is not None:
        config.margin_bias = 0.0
        length = config.max_length if config.count_all_positions else None
        config.margin_bias = calibrated_bias(_margins(model, selections), calibrate_to, length)
    random = torch.Generator().manual_seed(0)
    logits, masks, labels = [], [], []
    for batch, selection in zip(loader, selections, strict=True):
        inputs, attention_mask = _inputs(batch, device)
        feature = selection.feature
        for _ in range(CONTROL_DRAWS if config.method == "control" else 1):
            if config.method == "control":
                mask = random_mask(feature.cpu(), config.target_ratio, random).to(device)
            else:
                mask = deterministic_mask(model.margin(selection), feature)
            logits.append(model.classify(inputs, attention_mask, mask).cpu().numpy())
            masks += _rows(mask, feature)
            labels.append(batch["labels"].numpy())
    model.train(was_training)
    return Predictions(np.concatenate(logits), _margins(model, selections), masks, np.concatenate(labels))


def dev_metrics(predictions: Predictions, config: RationaleConfig, context: Context) -> dict[str, float]:
    """Accuracy, rationale ratio and L_RE (equation 6) with deterministic masks; `loss` selects the model."""
    length = config.max_length if config.count_all_positions else None
    masks = predictions.masks
    task = float(losses.task_loss(torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels)))
    metrics = {
        **classification_metrics(predictions.logits.argmax(axis=1), predictions.labels),
        "rationale_ratio": rationale_ratio(masks, length),
        "loss": task,
        "task_loss": task,
    }
    if config.generator is not None:
        selected = torch.tensor([float(mask.sum()) for mask in masks])
        features = torch.tensor([float(len(mask)) for mask in masks])
        selection = float(selection_term(context, selected, features))
        uncalibrated = [margin - config.margin_bias > 0 for margin in predictions.margins]
        assert context.config.lambda_select is not None
        metrics |= {
            "loss": task + context.config.lambda_select * selection,
            "selection_loss": selection,
            "argmax_ratio": rationale_ratio(uncalibrated, length),
            "margin_bias": config.margin_bias,
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

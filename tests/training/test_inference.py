"""Deterministic predictions over a data set, and the dev metrics that choose the epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rekd_edge.data import load_data
from rekd_edge.modeling import RationaleModel
from rekd_edge.training.inference import CONTROL_DRAWS, batches, control_masks, dev_metrics, predict
from rekd_edge.training.objectives import Context
from rekd_edge.training.preparation import preprocessing_of_run

both_tasks = pytest.mark.parametrize("task", ["text", "image"])


@pytest.fixture
def loaded(runs: Callable[..., Path], settings: Callable) -> Callable:
    """A run's model, and its dev data in batches of a given size."""

    def load(task: str, method: str, size: int = 10) -> tuple:
        folder = runs(task, "re") / "control-descent" if method == "control" else runs(task, method)
        model = RationaleModel.from_pretrained(folder)
        preprocessing = preprocessing_of_run(folder, model.config)
        config = settings(task, "re")
        features = preprocessing.features(load_data(config.spec, config.data).split("validation"))
        return model, features, batches(features, preprocessing.collator(), size)

    return load


@both_tasks
def test_predictions_are_those_of_the_model_on_each_example(task: str, loaded: Callable) -> None:
    model, features, loader = loaded(task, "re")
    result = predict(model.train(), loader)
    assert model.training  # as it was
    predict(model.eval(), loader)
    assert not model.training
    for i in (0, 7, 31):
        inputs = {k: v for k, v in loader.collate_fn([features[i]]).items() if k not in ("labels", "index")}
        alone = model(**inputs)
        np.testing.assert_allclose(result.logits[i], alone.logits[0].detach().numpy(), atol=1e-5)
        feature = alone.selection.feature[0]
        assert np.array_equal(result.masks[i], alone.mask[0][feature].numpy())
        np.testing.assert_allclose(result.margins[i], alone.margin[0][feature].detach().numpy(), atol=1e-5)
        assert result.labels[i] == features[i]["labels"]
    assert len(result.masks) == len(result.margins) == len(result.labels) == 32


@both_tasks
def test_calibration_brings_the_mean_ratio_to_the_target(task: str, loaded: Callable) -> None:
    model, _, loader = loaded(task, "re")
    for target in (0.5, 0.15, 0.9):
        model.config.target_ratio = target
        result = predict(model, loader, calibrate=True)
        assert np.mean([mask.mean() for mask in result.masks]) == pytest.approx(target, abs=0.01)
        again = predict(model, loader)  # at the bias that stayed in the model
        assert all(np.array_equal(a, b) for a, b in zip(result.masks, again.masks, strict=True))


def test_calibration_counts_all_positions_where_asked(loaded: Callable) -> None:
    model, _, loader = loaded("text", "re")
    model.config.count_all_positions = True
    model.config.target_ratio = 0.25
    result = predict(model, loader, calibrate=True)
    assert np.mean([mask.sum() / 48 for mask in result.masks]) == pytest.approx(0.25, abs=0.01)


@both_tasks
def test_control_is_measured_on_several_random_masks_that_stay_the_same(task: str, loaded: Callable) -> None:
    model, _, loader = loaded(task, "control")
    first, second = predict(model, loader), predict(model, loader)
    assert len(first.labels) == len(first.masks) == CONTROL_DRAWS * 32
    assert np.array_equal(first.logits, second.logits)
    for mask in first.masks:
        share = len(mask) * model.config.target_ratio
        assert mask.sum() in (max(1, np.floor(share)), max(1, np.ceil(share)))
    draws = [first.masks[i : i + 10] for i in (0, 10, 20)]  # three draws of the first batch
    assert not all(np.array_equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))


def test_masks_of_a_control_depend_on_an_examples_place_alone() -> None:
    """Not on batch size or padding; and they hold the ratio in the mean."""
    lengths = [9, 4, 36, 1, 0, 17]

    def drawn(sizes: list[int], padding: int) -> list[np.ndarray]:
        random, rows = torch.Generator().manual_seed(0), []
        for start, size in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True):
            group = lengths[start : start + size]
            feature = torch.arange(max(group) + padding) < torch.tensor(group)[:, None]
            masks = torch.stack(control_masks(feature, 0.15, random), dim=1)  # [rows, draws, features]
            rows += [mask[:, :length].numpy() for mask, length in zip(masks, group, strict=True)]
        return rows

    whole = drawn([6], 0)
    for other in (drawn([2, 3, 1], 0), drawn([4, 2], 3)):
        assert all(np.array_equal(one, again) for one, again in zip(whole, other, strict=True))
    masks = control_masks(torch.ones(3000, 36, dtype=torch.bool), 0.15, torch.Generator().manual_seed(0))
    assert torch.stack(masks).sum(dim=-1).float().mean().item() == pytest.approx(5.4, abs=0.02)


@both_tasks
def test_dev_loss_is_l_re_with_deterministic_masks(task: str, loaded: Callable, settings: Callable) -> None:
    model, _, loader = loaded(task, "re")
    config = settings(task, "re", lambda_select=0.02, target_ratio=0.3, normalise_selection=False).resolved(task)
    result = predict(model, loader)
    metrics = dev_metrics(
        result, model.config, Context(config, task, tuple(model.config.labels), model.config.max_length)
    )
    scores = torch.log_softmax(torch.from_numpy(result.logits), dim=1).numpy()
    task_loss = -scores[np.arange(32), result.labels].mean()
    select = np.mean([(mask.sum() - len(mask) * 0.3) ** 2 for mask in result.masks])
    assert metrics["task_loss"] == pytest.approx(task_loss, rel=1e-5)
    assert metrics["selection_penalty"] == pytest.approx(0.02 * select, rel=1e-5)
    assert metrics["loss"] == pytest.approx(task_loss + 0.02 * select, rel=1e-5)
    assert metrics["accuracy"] == np.mean(result.logits.argmax(axis=1) == result.labels)
    assert metrics["rationale_ratio"] == pytest.approx(np.mean([mask.mean() for mask in result.masks]))
    bias = model.config.margin_bias
    argmax = np.mean([(margin - np.float32(bias) > 0).mean() for margin in result.margins])
    assert metrics["argmax_ratio"] == pytest.approx(argmax, abs=1e-6)
    assert metrics["margin_bias"] == bias != 0


@both_tasks
def test_dev_loss_of_cls_is_the_task_loss(task: str, loaded: Callable, settings: Callable) -> None:
    model, _, loader = loaded(task, "cls")
    result = predict(model, loader, calibrate=True)  # nothing to calibrate
    metrics = dev_metrics(
        result, model.config, Context(settings(task, "cls").resolved(task), task, tuple(model.config.labels))
    )
    assert metrics["loss"] == metrics["task_loss"]
    assert metrics["rationale_ratio"] == 1.0
    assert "margin_bias" not in metrics

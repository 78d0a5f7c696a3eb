"""Each method's loss, put together again in numpy from what the model said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from objective_calls import (
    StoredTeacher,
    array,
    cross_entropy,
    inputs_and_mask,
    l_kd,
    l_re,
    run,
    softmax,
    with_teachers,
)

from rekd_edge.modeling import RationaleModel
from rekd_edge.training.objectives import PREDICTOR, Context, Moment, inputs_of, objective_of


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
    share = model.feature_positions(*inputs_and_mask(scene["batch"]))[0].sum(dim=1) * ratio
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

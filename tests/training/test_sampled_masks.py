"""Masks sampled with noise at dev and test time, as the published code of REKD evaluates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rekd_edge.errors import InputError
from rekd_edge.evaluate import evaluate
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.selection import gumbel_noise
from rekd_edge.training.inference import batches, predict
from rekd_edge.training.run import train

Loaded = tuple[RationaleModel, Callable[[int], list[dict[str, Tensor]]]]


@pytest.fixture(params=["text", "image"])
def loaded(request: pytest.FixtureRequest, settings: Callable, prepared: Callable) -> Loaded:
    """A model, and its dev data in batches of a given size."""
    model, preprocessing, data = prepared(settings(request.param, "re", target_ratio=0.1))
    features = preprocessing.features(data.split("validation"))
    return model.eval(), lambda size: list(batches(features, preprocessing.collator(), size))


def test_a_sampled_mask_is_where_noise_and_raw_margin_are_above_zero(loaded: Loaded) -> None:
    model, batches_of = loaded
    model.config.margin_bias = -3.0  # calibration has no part in what is sampled
    found = predict(model, batches_of(7), masks="sampled")
    random = torch.Generator().manual_seed(0)
    for margin, mask in zip(found.margins, found.masks, strict=True):
        noise = gumbel_noise(torch.empty(1, len(margin), 2), random)[0].numpy()
        assert np.array_equal(mask, margin + np.float32(3.0) + noise[:, 1] - noise[:, 0] > 0)
    ratio = np.mean([mask.mean() for mask in found.masks])
    assert 0.3 < ratio < 0.7  # the margins of a fresh head are near 0


def test_sampled_masks_depend_neither_on_the_batch_nor_on_the_call(loaded: Loaded) -> None:
    model, batches_of = loaded
    one, other = (predict(model, batches_of(size), masks="sampled") for size in (1, 9))
    assert all(np.array_equal(a, b) for a, b in zip(one.masks, other.masks, strict=True))
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)


def test_logits_are_those_of_the_sampled_mask(loaded: Loaded) -> None:
    model, batches_of = loaded
    found, deterministic = (predict(model, batches_of(32), masks=masks) for masks in ("sampled", "deterministic"))
    (batch,) = batches_of(32)
    inputs, attention_mask = batch.get("input_ids", batch.get("pixel_values")), batch.get("attention_mask")
    selection = model.select(inputs, attention_mask)
    mask = torch.zeros_like(selection.feature)
    mask[selection.feature] = torch.from_numpy(np.concatenate(found.masks))
    expected = model.classify(inputs, attention_mask, mask, selection).detach()
    np.testing.assert_allclose(found.logits, expected, atol=1e-5)
    assert np.abs(found.logits - deterministic.logits).max() > 1e-3


def test_the_epoch_is_chosen_by_sampled_masks_and_the_run_measured_by_deterministic_ones(
    settings: Callable, tmp_path: Path
) -> None:
    common = {"epochs": 1, "control": None, "target_ratio": 0.1, "learning_rate": 1e-6}
    metrics = {}
    for masks in ("sampled", "deterministic"):
        metrics[masks] = train(settings("text", "re", dev_masks=masks, **common), tmp_path / masks)
        (epoch,) = json.loads((tmp_path / masks / "training.json").read_text())["epochs"]
        expected = {"sampled": 0.5, "deterministic": 0.1}[masks]  # a fresh head samples about half
        assert epoch["eval_rationale_ratio"] == pytest.approx(expected, abs=0.1)
    assert metrics["sampled"] == metrics["deterministic"]
    assert metrics["sampled"]["rationale_ratio"] == pytest.approx(0.1, abs=0.02)

    sampled, deterministic = (
        evaluate(tmp_path / "sampled", "builtin:planted", split="validation", limit=32, masks=masks)
        for masks in ("sampled", "deterministic")
    )
    assert sampled["rationale_ratio"] == pytest.approx(0.5, abs=0.1)
    assert deterministic["rationale_ratio"] < 0.3


def test_what_samples_no_masks_is_not_evaluated_by_them(
    runs: Callable[..., Path], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    for folder, words in ((runs("text", "cls"), "cls"), (runs("text", "re") / "control-descent", "control")):
        with pytest.raises(InputError, match=f"{words} samples no masks when it is evaluated; leave --masks out"):
            evaluate(folder, "builtin:planted", limit=5, masks="sampled")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="A bundle's masks are deterministic"):
        evaluate(tmp_path, "builtin:planted", limit=5, masks="sampled")


def test_sampled_masks_are_refused_where_a_method_draws_none(settings: Callable) -> None:
    for method, words in (("rtp", "rtp does not read it"), ("cls", "cls selects nothing")):
        with pytest.raises(InputError, match=f"dev_masks has no effect on this run: {words}"):
            replace(settings("text", method, dev_masks="sampled"), asked=frozenset({"dev_masks"}))

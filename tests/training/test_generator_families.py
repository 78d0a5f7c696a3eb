"""Generators of another family than the predictor: local convolutions, and small nets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rekd_edge.errors import InputError
from rekd_edge.files import read_json
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.rounding import quantize_halves, quantize_rows, restore_halves
from rekd_edge.training.objectives import Context
from rekd_edge.training.run import train
from rekd_edge.training.trainer import RationaleTrainer


def weights(model: RationaleModel) -> np.ndarray:
    return model.predictor.encoder.embedding.weight.detach().numpy()


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("text", {"mask_mode": "drop", "select_words": True, "lambda_contiguity": 0.1}),
        ("text", {"mask_mode": "zero", "generator_context": True, "generator_width": 16}),
        ("image", {"mask_mode": "drop"}),
    ],
    ids=["text-drop", "text-zero", "image-drop"],
)
def test_a_student_with_a_local_generator_learns_from_a_transformer(
    task: str, changes: dict[str, Any], runs: Callable[..., Path], settings: Callable[..., Any], tmp_path: Path
) -> None:
    teacher = str(runs(task, "re"))
    config = settings(
        task,
        "rekd",
        generator="local",
        teacher=f"{teacher},{teacher}",
        allow_weak_teacher=True,
        warm_start=True,
        **changes,
    )
    train(config, tmp_path / "run")
    model = RationaleModel.from_pretrained(tmp_path / "run")

    assert model.config.generator["model_type"] == "rekd-local"
    assert model.generator.encoder.hidden_size == changes.get("generator_width", 64)
    assert model.generator.encoder.embedding is model.predictor.encoder.embedding
    assert read_json(tmp_path / "run" / "training.json")["recipe"]["generator"] == "local"


def test_its_embeddings_are_rounded_before_calibration(settings: Callable[..., Any], tmp_path: Path) -> None:
    rounded = {}
    for name, changes in {
        "local": {"generator": "local"},
        "exact": {"generator": "local", "round_embeddings": False},
        "4 bits": {"generator": "local", "round_embeddings": 4},
    }.items():
        train(settings("text", "re", mask_mode="drop", control=None, **changes), tmp_path / name)
        table = weights(RationaleModel.from_pretrained(tmp_path / name))
        values, scale = quantize_rows(table)
        in_4_bits = restore_halves(*quantize_halves(table))
        rounded[name] = np.array_equal(values * scale, table), np.array_equal(in_4_bits, table)
    assert rounded == {"local": (True, False), "exact": (False, False), "4 bits": (False, True)}


def test_its_untrained_layers_learn_at_the_rate_of_the_heads(
    settings: Callable[..., Any], prepared: Callable[..., Any], tmp_path: Path
) -> None:
    config = settings("text", "re", generator="local", learning_rate=1e-5, head_learning_rate=1e-3)
    model, preprocessing, data = prepared(config)
    splits = [preprocessing.features(data.split(split)) for split in ("train", "validation")]
    context = Context(config.resolved("text"), "text", tuple(data.label_names))
    trainer = RationaleTrainer(model, context, tmp_path, *splits, preprocessing.collator(), [])

    rate = {id(weight): group["lr"] for group in trainer.create_optimizer().param_groups for weight in group["params"]}
    assert {rate[id(weight)] for weight in model.generator.parameters()} == {1e-3}
    assert {rate[id(weight)] for weight in model.predictor.encoder.parameters()} == {1e-5}


def test_a_small_net_may_select_for_a_transformer(settings: Callable[..., Any], tmp_path: Path) -> None:
    train(settings("text", "re", generator="cnn", generator_layers=1, control=None), tmp_path / "run")
    model = RationaleModel.from_pretrained(tmp_path / "run")
    assert model.config.generator["model_type"] == "rekd-cnn"
    assert model.config.predictor["model_type"] == "bert"
    ids = torch.tensor([[2, 9, 11, 3]])
    assert torch.isfinite(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"generator": "local", "freeze_embeddings": "generator"}, "reads the predictor's embeddings"),
        ({"generator": "near"}, "generator"),
        ({"generator": "local", "generator_width": 4}, "generator_width"),
        ({"generator": "local", "round_embeddings": 6}, "from 4 to 8 that is a multiple of 4"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], sentence: str, settings: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=sentence):
        settings("text", "re", **changes)

"""Tiny runs on the built-in data, trained once a session, and what objectives need around a tiny model."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from rekd_edge.data import DataSource, load_data
from rekd_edge.modeling import RationaleModel
from rekd_edge.training.configuration import TrainingConfig, load_config
from rekd_edge.training.objectives import Context
from rekd_edge.training.preparation import Preprocessing, build_model, model_config, prepare_preprocessing
from rekd_edge.training.run import train

sys.path.insert(0, str(Path(__file__).parent))  # objective_calls, run_folders

COMMON = {
    "precision": "fp32",
    "layers": 1,
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "temperature_refresh": 1,
    "comparison_control": "descent",
    "data.train_limit": 64,
    "data.eval_limit": 32,
}
TEXT = {**COMMON, "backbone": "random:bert-nano", "data.spec": "builtin:planted", "data.max_length": 48}
KEY_BIAS = (".key.bias", ".k_proj.bias")
IMAGE = {**COMMON, "backbone": "random:vit-nano", "data.spec": "builtin:digits"}


@pytest.fixture(scope="session")
def settings() -> Callable[..., TrainingConfig]:
    """A tiny run's settings; dots in names are written as two underscores."""

    def make(task: str, method: str, **changes: Any) -> TrainingConfig:
        given = {name.replace("__", "."): value for name, value in changes.items()}
        return load_config(None, {**(TEXT if task == "text" else IMAGE), "method": method, **given})

    return make


@pytest.fixture(scope="session")
def runs(make_once: Callable[..., Path], settings: Callable[..., TrainingConfig]) -> Callable[..., Path]:
    """The finished run of a task and method: `cls`, `re` (with a control) or `rekd` (from that `re`)."""

    def run(task: str, method: str) -> Path:
        changes: dict[str, Any] = {}
        if method == "rekd":
            teacher = str(run(task, "re"))
            changes = {"teacher": teacher, "control": teacher, "allow_weak_teacher": True}
        config = settings(task, method, **changes)
        return make_once(f"runs/{task}-{method}", lambda output: train(config, output))

    return run


@pytest.fixture(scope="session")
def assert_trained_alike() -> Callable[[Path, Path], None]:
    """Check that two runs differ by no more than the order in which they add float32 numbers up.

    A gradient is a sum of n products, about 5e4 here (examples x tokens x width), and is off by about sqrt(n) eps =
    3e-5 of itself; a step of AdamW is about a learning rate long whatever the gradient's size. So the weights of two
    such runs lie within 1e-4 learning rates a step of each other, on any processor, while a batch that is weighted
    wrongly or drawn with other noise moves them by 1e-3 and more. Where the gradient is rounding alone, as that of
    attention's key biases, which the softmax cancels, AdamW makes whole steps of it, in either direction.
    """

    def check(one: Path, other: Path) -> None:
        ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
        assert ours.keys() == theirs.keys()
        records = [json.loads((folder / "training.json").read_text()) for folder in (one, other)]
        assert records[0]["steps"] == records[1]["steps"]
        path = records[0]["steps"] * records[0]["recipe"]["learning_rate"]

        differences = {name: (theirs[name] - weight).abs() for name, weight in ours.items()}
        assert max(float(difference.max()) for difference in differences.values()) <= 2 * path
        moved = {name: difference for name, difference in differences.items() if not name.endswith(KEY_BIAS)}
        for name, difference in moved.items():
            assert float(difference.mean()) <= 1e-3 * path, name
        total = sum(float(difference.sum()) for difference in moved.values())
        assert total / sum(difference.numel() for difference in moved.values()) <= 1e-4 * path

        metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
        assert metrics[1] == pytest.approx(metrics[0], abs=1e-3)
        losses = [[epoch["eval_loss"] for epoch in record["epochs"]] for record in records]
        assert losses[1] == pytest.approx(losses[0], abs=1e-3)

    return check


@pytest.fixture(scope="session")
def prepared() -> Callable[[TrainingConfig], tuple[RationaleModel, Preprocessing, DataSource]]:
    """A model, its preprocessing and its data, as a run begins with them."""

    made: dict[str, tuple[RationaleModel, Preprocessing, DataSource]] = {}

    def prepare(config: TrainingConfig) -> tuple[RationaleModel, Preprocessing, DataSource]:
        key = repr(config)
        if key not in made:
            made[key] = fresh(config)
        model, preprocessing, data = made[key]
        return copy.deepcopy(model), preprocessing, data

    def fresh(config: TrainingConfig) -> tuple[RationaleModel, Preprocessing, DataSource]:
        data = load_data(config.spec, config.data)
        config = config.resolved(data.task)
        preprocessing = prepare_preprocessing(config, data, [])
        facts = model_config(config, data, preprocessing)
        return build_model(config, facts, preprocessing.tokenizer), preprocessing, data

    return prepare


@pytest.fixture(scope="session")
def first_batch() -> Callable[..., dict[str, Tensor]]:
    """The first training examples as a batch."""

    def collate(preprocessing: Preprocessing, data: DataSource, size: int = 8, **kind: Any) -> dict[str, Tensor]:
        features = preprocessing.features(data.split("train"))
        return preprocessing.collator(**kind)([features[i] for i in range(size)])

    return collate


@pytest.fixture(params=["text", "image"])
def scene(request: Any, settings: Callable, prepared: Callable, first_batch: Callable) -> dict[str, Any]:
    """A model in training, a batch of 8, and a context; every setting at hand to be changed."""
    config = settings(request.param, "re", target_ratio=0.2, lambda_select=0.01)
    model, preprocessing, data = prepared(config)
    batch = first_batch(preprocessing, data)
    grid = None if preprocessing.image is None else preprocessing.image.grid
    context = Context(config.resolved(data.task), data.task, tuple(data.label_names), preprocessing.max_length, grid)
    return {"model": model.train(), "batch": batch, "context": context}

"""Graphs of models with random weights, and rows to ask them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.torch import save

from rekd_edge.export import graph
from rekd_edge.export.graph import export_graph
from rekd_edge.export.parity import Feed
from rekd_edge.modeling import RationaleModel

LOCAL = {
    "precision": "fp32",
    "layers": 1,
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "data.train_limit": 64,
    "data.eval_limit": 64,
    "mask_mode": "drop",
    "generator": "local",
    "control": None,
    "method": "re",
}
LOCAL_DATA: dict[str, dict[str, Any]] = {
    "text": {"backbone": "random:bert-nano", "data.spec": "builtin:planted", "data.max_length": 48},
    "image": {"backbone": "random:vit-nano", "data.spec": "builtin:digits"},
}


@pytest.fixture(autouse=True)
def trace_once(make_once: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace every model once a session, whichever test exports it: tracing takes seconds."""
    trace = graph.trace

    def traced(model: RationaleModel) -> ir.Model:
        weights = {name: weight.contiguous().clone() for name, weight in model.state_dict().items()}
        facts = json.dumps([type(model).__name__, asdict(model.config)], sort_keys=True)
        digest = hashlib.sha256(facts.encode() + save(weights)).hexdigest()

        def write(folder: Path) -> None:
            folder.mkdir()
            ir.save(trace(model), folder / "traced.onnx")

        return ir.load(make_once(f"traced-{digest}", write) / "traced.onnx")

    monkeypatch.setattr(graph, "trace", traced)


@pytest.fixture(scope="session")
def make_graph(
    make_run: Callable[..., Path], make_once: Callable[[str, Callable[[Path], Any]], Path]
) -> Callable[..., tuple[RationaleModel, Path]]:
    """A model in `eval()` and its graph, which the first worker traces that asks for it."""

    def make(*variant: str) -> tuple[RationaleModel, Path]:
        model = RationaleModel.from_pretrained(make_run(*variant))

        def write(folder: Path) -> None:
            folder.mkdir()
            export_graph(model, folder / "model.onnx")

        return model, make_once(f"graph-{'-'.join(variant)}", write) / "model.onnx"

    return make


@pytest.fixture(scope="session")
def make_feeds() -> Callable[[str, int], list[Feed]]:
    """Unpadded rows: texts of 0 to 30 random words between [CLS] and [SEP], or random pixels."""

    def make(task: str, count: int) -> list[Feed]:
        random = np.random.default_rng(0)
        if task == "image":
            return [{"pixel_values": random.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]
        rows = [np.array([[2, *random.integers(4, 80, random.integers(0, 31)), 3]]) for _ in range(count)]
        return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]

    return make


@pytest.fixture(scope="session")
def make_planted_feeds() -> Callable[[Path], list[Feed]]:
    """300 unseen reviews of `builtin:planted`, as a run reads them."""

    def make(run: Path) -> list[Feed]:
        from rekd_edge.data import DataSettings, load_data
        from rekd_edge.runtime.text import encode_texts, load_tokenizer

        texts = load_data("builtin:planted", DataSettings()).split("test").inputs[:300]
        rows = [np.array([row.ids]) for row in encode_texts(load_tokenizer(run / "tokenizer.json", 64), texts)]
        return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]

    return make


@pytest.fixture(scope="session")
def make_local_run(make_once: Callable[..., Path]) -> Callable[[str], Path]:
    """A short run with a local generator, on reviews or digits."""

    def make(task: str) -> Path:
        from rekd_edge.training.configuration import load_config
        from rekd_edge.training.run import train

        config = load_config(None, {**LOCAL, **LOCAL_DATA[task]})
        return make_once(f"local/{task}", lambda run: train(config, run))

    return make

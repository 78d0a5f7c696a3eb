"""Graphs of models with random weights, and rows to ask them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rekd_edge.export.graph import export_graph
from rekd_edge.export.parity import Feed
from rekd_edge.modeling import RationaleModel


@pytest.fixture(scope="session")
def make_graph(
    make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[RationaleModel, Path]]:
    """A model in `eval()` and its graph."""
    made: dict[tuple[str, ...], tuple[RationaleModel, Path]] = {}

    def make(*variant: str, target: str = "cpu") -> tuple[RationaleModel, Path]:
        key = *variant, target
        if key not in made:
            model = RationaleModel.from_pretrained(make_run(*variant))
            path = tmp_path_factory.mktemp("graphs") / f"{'-'.join(key)}.onnx"
            export_graph(model, path, target)
            made[key] = model, path
        return made[key]

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

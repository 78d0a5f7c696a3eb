"""Positions that no text of the run reaches are not shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from rekd_edge.modeling import RationaleModel

Graph = Callable[..., tuple[RationaleModel, Path]]


def test_positions_beyond_the_longest_text_are_left_out(make_graph: Graph) -> None:
    model, path = make_graph("text", "drop", "re")
    longest, pretrained = model.config.max_length, model.predictor.encoder.config.max_position_embeddings
    rows = [tensor.dims[0] for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 2]
    assert longest < pretrained
    assert rows.count(longest) == 2  # generator and predictor
    assert pretrained not in rows

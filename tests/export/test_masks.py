"""Graphs read masks as they are: what an attention bias of 0 and -1e30 says takes no nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper

from rekd_edge.export.masks import read_masks, read_sizes
from rekd_edge.modeling import RationaleModel

HIDDEN = np.float32(-1e30)
HEADER = '<ir_version: 8, opset_import: ["" : 18]>\n'
INTEGERS = """g (int64[batch, length] mask) => (bool[batch, length] unseen) <float one = {1.0}, float hidden = {-1e30},
    float zero = {0.0}, int64[2] axes = {1, 2}, int64 first = {0}> {
    wide = Unsqueeze(mask, axes)
    floats = Cast<to = 1>(wide)
    absent = Sub(one, floats)
    bias = Mul(absent, SCALE)
    some = Gather<axis = 1>(bias, first)
    rows = Gather<axis = 1>(some, first)
    seen = Equal(rows, zero)
    unseen = Not(seen)
}"""
BOOLS = """g (int64[batch, length] rank) => (bool[batch, length] unseen) <int64 none = {0}, float hidden = {-1e30},
    float zero = {0.0}, int64[2] axes = {1, 2}, int64[2] shape = {0, -1}> {
    filler = LessOrEqual(rank, none)
    wide = Unsqueeze(filler, axes)
    floats = Cast<to = 1>(wide)
    bias = Mul(floats, hidden)
    open = Equal(bias, zero)
    seen = Reshape(open, shape)
    unseen = Not(seen)
}"""
SIZES = """g (float[batch, length] x, int64 size) => (float[batch, kept] best, int64[batch, kept] places)
    <int64[1] flat = {-1}, int64 first = {0}> {
    vector = Reshape(size, flat)
    number = Gather<axis = 0>(vector, first)
    again = Reshape(number, flat)
    best, places = TopK(x, again)
}"""


def parsed(text: str) -> ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.parser.parse_model(HEADER + text), strict_mode=True)


def rewritten(text: str, rewrite: Callable[[ir.Model], None]) -> ModelProto:
    model = ir.from_proto(parsed(text))
    rewrite(model)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    return ir.to_proto(model)


def operators(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def answers(model: ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)


@pytest.mark.parametrize(
    ("text", "name", "left"),
    [(INTEGERS.replace("SCALE", "hidden"), "mask", ["Equal", "Not"]), (BOOLS, "rank", ["Greater", "Not"])],
)
def test_a_comparison_with_a_bias_becomes_the_mask(text: str, name: str, left: list[str]) -> None:
    model = rewritten(text, read_masks)
    assert operators(model) == left
    values = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    (unseen,) = answers(model, {name: values})
    assert (unseen == (values == 0)).all()
    assert (answers(parsed(text), {name: values})[0] == unseen).all()


def test_what_is_scaled_by_another_number_is_no_bias() -> None:
    text = INTEGERS.replace("SCALE", "one")
    assert operators(rewritten(text, read_masks)) == operators(parsed(text))


def test_a_size_is_read_once() -> None:
    model = rewritten(SIZES, read_sizes)
    assert operators(model) == ["Reshape", "TopK"]
    feed = {"x": np.array([[1, 3, 2]], np.float32), "size": np.array(2)}
    assert [each.tolist() for each in answers(model, feed)] == [[[3.0, 2.0]], [[1, 2]]]


@pytest.mark.parametrize("variant", [("text", "zero", "re"), ("text", "drop", "re"), ("text", "zero", "re", "cnn")])
def test_no_graph_computes_a_bias(
    make_graph: Callable[..., tuple[RationaleModel, Path]], variant: tuple[str, ...]
) -> None:
    model = onnx.load(make_graph(*variant)[1])
    numbers = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert not any(number.size == 1 and number.dtype == np.float32 and number.item() == HIDDEN for number in numbers)

"""Fused graphs hold attention in one node and leave out what no classifier reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from rekd_edge.export.fusion import MOVES, keep_class_token
from rekd_edge.export.parity import Feed
from rekd_edge.modeling import RationaleModel

Graph = Callable[..., tuple[RationaleModel, Path]]
WIDTH = 8


def attention_nodes(model: ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "MultiHeadAttention"]


def shapes(model: ModelProto, names: list[str], feed: Feed) -> list[tuple[int, ...]]:
    """Of inner tensors, as ONNX Runtime computes them."""
    probe = ModelProto.FromString(model.SerializeToString())
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    return [value.shape for value in session.run(names, feed)]


@pytest.mark.parametrize("task", ["text", "image"])
@pytest.mark.parametrize("mask_mode", ["zero", "drop"])
def test_attention_reads_its_projections_and_feeds_the_next_without_moves(
    make_graph: Graph, task: str, mask_mode: str
) -> None:
    model = onnx.load(make_graph(task, mask_mode, "re")[1])
    nodes = attention_nodes(model)
    assert len(nodes) == 2  # one layer in each tower
    producer = {name: node.op_type for node in model.graph.node for name in node.output}
    for node in nodes:
        assert not {producer[name] for name in node.input[:3]} & set(MOVES)
        assert not {user.op_type for user in model.graph.node if node.output[0] in user.input} & set(MOVES)


@pytest.mark.parametrize("task", ["text", "image"])
@pytest.mark.parametrize("mask_mode", ["zero", "drop"])
def test_the_last_layer_is_computed_for_the_first_positions_alone(
    make_graph: Graph, make_feeds: Callable[[str, int], list[Feed]], task: str, mask_mode: str
) -> None:
    model = onnx.load(make_graph(task, mask_mode, "re")[1])
    generator, predictor = attention_nodes(model)
    for feed in make_feeds(task, 9):
        positions = feed["input_ids"].shape[1] if task == "text" else 1 + 64
        whole, query, key, narrow = shapes(
            model, [generator.output[0], predictor.input[0], predictor.input[1], predictor.output[0]], feed
        )
        assert whole[1] == positions
        assert query[1] == narrow[1] == min(2, key[1])
        assert key[1] == positions if mask_mode == "zero" else 2 <= key[1] <= positions


def test_opening_a_graph_adds_no_slow_normalization(make_graph: Graph, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    path = make_graph("text", "drop", "re")[1]
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(tmp_path / "opened.onnx").graph.node}
    assert "LayerNormalization" in operators
    assert "SkipLayerNormalization" not in operators
    assert operators & {"Gelu", "BiasGelu", "FastGelu"}
    assert "Erf" not in operators


def test_a_graph_holds_no_path_of_this_machine(make_graph: Graph) -> None:
    model = onnx.load(make_graph("text", "drop", "re")[1])
    assert not model.metadata_props
    assert not any(node.metadata_props for node in model.graph.node)
    assert str(Path(__file__).parents[2]).encode() not in model.SerializeToString()


def graph(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> ModelProto:
    io = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, None, WIDTH]), ("logits", None))
    ]
    made = helper.make_graph(
        nodes, "tiny", io[:1], io[1:], [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=imports, ir_version=8)


def layer(key: str = "x") -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Attention with a residual, a product, and the classifier on the first position."""
    random = np.random.default_rng(0)
    constants = {name: random.normal(size=(WIDTH, WIDTH)).astype(np.float32) for name in ("q", "o", "c")}
    constants["first"] = np.array(0)
    nodes = [
        helper.make_node("MatMul", ["x", "q"], ["query"]),
        helper.make_node("MultiHeadAttention", ["query", key, "x"], ["a"], domain="com.microsoft", num_heads=2),
        helper.make_node("MatMul", ["a", "o"], ["b"]),
        helper.make_node("Add", ["b", "x"], ["c1"]),
        helper.make_node("Relu", ["c1"], ["d"]),
        helper.make_node("Gather", ["d", "first"], ["e"], axis=1),
        helper.make_node("MatMul", ["e", "c"], ["logits"]),
    ]
    return nodes, constants


@pytest.mark.parametrize("key", ["x", "query"])
@pytest.mark.parametrize("positions", [1, 2, 7])
def test_leaving_positions_out_changes_no_answer(key: str, positions: int) -> None:
    """Also where keys are the queries, which are then needed at every position."""
    traced = ir.from_proto(graph(*layer(key)))
    x = np.random.default_rng(1).normal(size=(1, positions, WIDTH)).astype(np.float32)
    before = onnxruntime.InferenceSession(ir.to_proto(traced).SerializeToString()).run(["logits"], {"x": x})[0]
    keep_class_token(traced)
    model = ir.to_proto(traced)
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(["logits"], {"x": x})[0]
    np.testing.assert_allclose(after, before, atol=1e-5)
    needed = shapes(model, ["query", "a", "d"], {"x": x})
    few = (1, min(2, positions), WIDTH)
    assert needed == [few if key == "x" else (1, positions, WIDTH), few, few]


def test_a_layer_without_attention_stays_whole() -> None:
    nodes, constants = layer()
    del nodes[1]
    nodes[1].input[0] = "query"
    model = ir.from_proto(graph(nodes, constants))
    before = ir.to_proto(model)
    keep_class_token(model)
    assert ir.to_proto(model) == before

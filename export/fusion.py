"""Rewrites a traced graph into the form that ONNX Runtime computes fastest on CPUs, with the same answers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes import common

from rekd_edge.export.masks import read_masks, read_sizes

__all__ = ["fuse"]

# SkipLayerNormalization is slower than Add and LayerNormalization on CPUs; the others hide the bias of a product.
UNWANTED = ["SkipLayerNormFusion", "BiasGeluFusion", "BiasSkipLayerNormFusion", "EmbedLayerNormFusion"]
ATTENTION = "MultiHeadAttention"
MOVES = ("Reshape", "Transpose")
POSITIONWISE = ("Add", "MatMul", "LayerNormalization", "Gelu", "FastGelu", "QuickGelu", "Relu", "Tanh")
SLICE = {"first_start": 0, "first_end": 2, "first_axis": 1}


def fuse(model: ir.Model) -> ir.Model:
    """ONNX Runtime's own fusions, attention without reshapes, masks without biases, and the last layer for the class
    token alone.

    Args:
        model: as `export_graph` traces it; it is changed in place.
    """
    join_attention(model)
    read_masks(model)
    read_sizes(model)
    common.RemoveUnusedNodesPass()(model)

    fused = optimise(model)
    keep_class_token(fused)
    common.RemoveUnusedNodesPass()(fused)
    forget_shapes(fused)

    return fused


def optimise(model: ir.Model) -> ir.Model:
    """ONNX Runtime's offline optimisation: constants are folded, and its contributed operators are used."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(
            ir.to_proto(model).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=UNWANTED,
        )
        return ir.load(options.optimized_model_filepath)


def join_attention(model: ir.Model) -> None:
    """Remove the reshapes and transposes that split heads before an attention node and merge them after it."""
    for node in model.graph:
        if node.op_type != ATTENTION:
            continue

        for place, value in enumerate(node.inputs[:3]):
            while value is not None and (before := value.producer()) is not None and before.op_type in MOVES:
                value = before.inputs[0]
            node.replace_input_with(place, value)

        merged = node.outputs[0]
        while moves := [user for user in merged.consumers() if user.op_type in MOVES]:
            merged = moves[0].outputs[0]
        merged.replace_all_uses_with(node.outputs[0])


def keep_class_token(model: ir.Model) -> None:
    """Compute only the first positions of the layer before the classifier: nothing reads the rest.

    The classifier's `hidden[:, 0]` moves up through whatever works position by position, as far as the queries of the
    last attention, whose keys and values still come from every position. Two positions are kept and not one: products
    with a single row sum in an order that depends on the number of columns, and a row's answer would then depend, in
    its last digit, on the padding.
    """
    pooling = next(value for value in model.graph.outputs if value.name == "logits").producer()
    while pooling is not None and pooling.op_type in ("Gemm", "MatMul", "Add", "Cast"):
        pooling = next(value for value in pooling.inputs if value and not value.is_initializer()).producer()
    if pooling is None or pooling.op_type != "Gather":
        return

    narrow: dict[ir.Node, None] = {}  # nodes of which the first positions alone are read
    for node in reversed(model.graph):
        positionwise = node.op_type == ATTENTION or node.op_type in POSITIONWISE
        uses = [use for value in node.outputs for use in value.uses()]
        if positionwise and uses and all(_reads_first(*use, narrow, pooling) for use in uses):
            narrow[node] = None

    if any(node.op_type == ATTENTION for node in narrow):
        _slice_inputs(model.graph, narrow)


def _slice_inputs(graph: ir.Graph, narrow: dict[ir.Node, None]) -> None:
    """Give nodes the first positions of what they read of other nodes; attention, those of its queries alone."""
    bounds = [ir.val(name, const_value=ir.tensor(np.array([number]), name=name)) for name, number in SLICE.items()]
    for bound in bounds:
        graph.register_initializer(bound)

    firsts: dict[ir.Value, ir.Value] = {}
    for node in narrow:
        for place, value in enumerate(node.inputs[:1] if node.op_type == ATTENTION else node.inputs):
            if value is None or value.is_initializer() or value.producer() in narrow:
                continue

            if value not in firsts:
                firsts[value] = _sliced(graph, value, bounds)
            node.replace_input_with(place, firsts[value])


def forget_shapes(model: ir.Model) -> None:
    """Remove the types and shapes of inner tensors.

    With them ONNX Runtime would fuse Add and LayerNormalization into the slower SkipLayerNormalization when it opens
    the graph, and they are wrong where `keep_class_token` has cut a tensor.
    """
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None


def _sliced(graph: ir.Graph, value: ir.Value, bounds: list[ir.Value]) -> ir.Value:
    """A new Slice of a value, as soon as there is one."""
    node = ir.node("Slice", [value, *bounds], name=f"{value.name}_first")
    node.outputs[0].name = f"{value.name}_first"
    producer = value.producer()
    graph.insert_before(graph[0], node) if producer is None else graph.insert_after(producer, node)
    return node.outputs[0]


def _reads_first(user: ir.Node, place: int, narrow: dict[ir.Node, None], pooling: ir.Node) -> bool:
    """Whether a node reads the first positions alone of its input at `place`."""
    attends = user.op_type == ATTENTION and place in (1, 2)
    return user is pooling or (user in narrow and not attends)

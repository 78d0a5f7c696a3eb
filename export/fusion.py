"""A traced graph in the form that ONNX Runtime computes fastest on CPUs, with the same answers."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import onnx.utils
import onnxruntime
from onnx import ModelProto, NodeProto, helper, numpy_helper

__all__ = ["fuse", "optimise"]

# SkipLayerNormalization is slower than Add and LayerNormalization on CPUs; the others hide the bias of a product.
UNWANTED = ["SkipLayerNormFusion", "BiasGeluFusion", "BiasSkipLayerNormFusion", "EmbedLayerNormFusion"]
ATTENTION = "MultiHeadAttention"
MOVES = ("Reshape", "Transpose")
POSITIONWISE = ("Add", "MatMul", "LayerNormalization", "Gelu", "FastGelu", "QuickGelu", "Relu", "Tanh")
SLICE = ("first_start", "first_end", "first_axis")


def fuse(model: ModelProto) -> ModelProto:
    """ONNX Runtime's own fusions, attention without moves, and the last layer for the class token alone.

    Args:
        model: as `export_graph` writes it with `fused`; it is left as it is.
    """
    joined = ModelProto.FromString(model.SerializeToString())
    join_attention(joined)
    fused = optimise(pruned(joined), extended=True)
    keep_class_token(fused)
    return pruned(fused)


def pruned(model: ModelProto) -> ModelProto:
    """The same graph without what no output needs."""
    ends = ([value.name for value in side] for side in (model.graph.input, model.graph.output))
    return onnx.utils.Extractor(model).extract_model(*ends)


def optimise(model: ModelProto, extended: bool) -> ModelProto:
    """ONNX Runtime's offline optimisation: constants folded, and with `extended` its contributed operators."""
    levels = onnxruntime.GraphOptimizationLevel
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if extended else levels.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=UNWANTED
        )
        return onnx.load(options.optimized_model_filepath)


def join_attention(model: ModelProto) -> None:
    """Take away the reshapes and transposes that split heads before an attention node and merge them after it."""
    producer = {name: node for node in model.graph.node for name in node.output}
    users = consumers(model)
    for node in model.graph.node:
        if node.op_type != ATTENTION:
            continue
        for place in range(3):
            while (before := producer[node.input[place]]).op_type in MOVES:
                node.input[place] = before.input[0]
        merged = node.output[0]
        while moves := [user for user in users[merged] if user.op_type in MOVES]:
            merged = moves[0].output[0]
        for user in users[merged]:
            user.input[:] = [node.output[0] if name == merged else name for name in user.input]


def keep_class_token(model: ModelProto) -> None:
    """Compute, of the layer before the classifier, its first positions alone: the rest is never read.

    The classifier's `hidden[:, 0]` moves up through whatever works position by position, as far as the queries of the
    last attention, whose keys and values still come from every position. Two positions are kept and not one: products
    with a single row sum in an order that depends on the number of columns, and a row's answer would then depend, in
    its last digit, on the padding.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    users = consumers(model)
    classifier = producer["logits"]
    while classifier.op_type in ("Gemm", "MatMul", "Add", "Cast"):
        classifier = producer[next(name for name in classifier.input if name not in constants)]
    if classifier.op_type != "Gather":
        return

    def reads_first(user: NodeProto, name: str) -> bool:
        attends = user.op_type == ATTENTION and name in user.input[1:3]
        return user is classifier or (id(user) in narrow and not attends)

    narrow: dict[int, NodeProto] = {}  # nodes of which the first positions alone are read
    for node in reversed(graph.node):
        positionwise = node.op_type == ATTENTION or node.op_type in POSITIONWISE
        readers = [(user, name) for name in node.output for user in users[name]]
        if positionwise and readers and all(reads_first(user, name) for user, name in readers):
            narrow[id(node)] = node
    if not any(node.op_type == ATTENTION for node in narrow.values()):
        return
    narrowed = {name for node in narrow.values() for name in node.output}
    firsts: dict[str, NodeProto] = {}
    for node in narrow.values():
        for place, name in enumerate(node.input[:1] if node.op_type == ATTENTION else node.input):
            if name not in constants | narrowed:
                firsts.setdefault(name, helper.make_node("Slice", [name, *SLICE], [f"{name}_first"]))
                node.input[place] = firsts[name].output[0]
    graph.initializer.extend(
        numpy_helper.from_array(np.array([value]), name) for name, value in zip(SLICE, (0, 2, 1), strict=True)
    )
    ordered = [firsts[value.name] for value in graph.input if value.name in firsts]
    for node in graph.node:
        ordered += [node, *(firsts[name] for name in node.output if name in firsts)]
    rest = [NodeProto.FromString(node.SerializeToString()) for node in ordered]  # the list holds references
    del graph.node[:]
    graph.node.extend(rest)


def consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each tensor; an empty list for one that none reads."""
    users: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            users[name].append(node)
    return users

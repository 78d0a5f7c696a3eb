"""Shortens what a traced graph computes from its mask.

Encoders, like those of transformers, take an additive attention bias [batch, 1, 1, positions] of 0 and `HIDDEN`. The
graph's attention nodes and convolutions want the mask itself, so that a traced graph makes a bias of the mask and
compares it with 0. Where few features are kept, every node costs more than its arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from rekd_edge.modeling.masking import HIDDEN

__all__ = ["read_masks", "read_sizes"]


def read_masks(model: ir.Model) -> None:
    """Replace every comparison of an attention bias with 0 by the mask that the bias was computed from, in place."""
    for node in list(model.graph):
        if node.op_type != "Equal" or constant_of(node.inputs[1]) != 0.0:
            continue

        compared, mask = _as_rows(node.outputs[0]), _mask_of(node.inputs[0])
        if compared is not None and mask is not None:
            compared.replace_all_uses_with(_visible(model.graph, mask, f"{compared.name}_visible"))


def read_sizes(model: ir.Model) -> None:
    """Where a size is reshaped to a vector, read as a number, and reshaped to a vector again, use the first vector."""
    for node in list(model.graph):
        if node.op_type != "Reshape" or constant_of(node.inputs[1]) != -1:
            continue

        number = producer_of(node.inputs[0], "Gather")
        vector = number and constant_of(number.inputs[1]) == 0 and producer_of(number.inputs[0], "Reshape")
        if vector and constant_of(vector.inputs[1]) == -1 and _rank(vector.inputs[0]) == 0:
            node.outputs[0].replace_all_uses_with(vector.outputs[0])


def constant_of(value: ir.Value | None) -> Any:
    """The single element of a constant; None for any other value."""
    array = None if value is None or value.const_value is None else value.const_value.numpy()
    return array.item() if array is not None and array.size == 1 else None


def producer_of(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """The node that makes a value, where it is one of these operators."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in operators else None


def _as_rows(compared: ir.Value) -> ir.Value | None:
    """A comparison as [batch, positions]: itself, or the Reshape that alone reads it."""
    users = list(compared.consumers())
    if len(users) == 1 and users[0].op_type == "Reshape":
        compared = users[0].outputs[0]
    return compared if _rank(compared) == 2 else None


def _mask_of(bias: ir.Value | None) -> ir.Value | None:
    """What a bias was computed from, [batch, positions]: integers, 1 on what is visible, or bools, true on what is not.

    None where the value is no such bias.
    """
    while (moved := producer_of(bias, "Gather", "Unsqueeze", "Reshape")) is not None:
        bias = moved.inputs[0]

    scaled = producer_of(bias, "Mul")
    if scaled is None or constant_of(scaled.inputs[1]) != np.float32(HIDDEN):
        return None

    hidden, wanted = scaled.inputs[0], ir.DataType.BOOL
    if (difference := producer_of(hidden, "Sub")) is not None and constant_of(difference.inputs[0]) == 1.0:
        hidden, wanted = difference.inputs[1], ir.DataType.INT64

    cast = producer_of(hidden, "Cast")
    mask = None if cast is None else cast.inputs[0]
    while (moved := producer_of(mask, "Unsqueeze")) is not None:
        mask = moved.inputs[0]

    return mask if mask is not None and mask.dtype == wanted and _rank(mask) == 2 else None


def _visible(graph: ir.Graph, mask: ir.Value, name: str) -> ir.Value:
    """A new value, true where a mask that `_mask_of` found says visible: bool [batch, positions]."""
    rank = producer_of(mask, "LessOrEqual")

    if mask.dtype == ir.DataType.INT64:
        one = ir.val(f"{name}_one", const_value=ir.tensor(np.array(1), name=f"{name}_one"))
        graph.register_initializer(one)
        node = ir.node("Equal", [mask, one], name=name)
    elif rank is not None:
        node = ir.node("Greater", list(rank.inputs), name=name)
    else:
        node = ir.node("Not", [mask], name=name)

    node.outputs[0].name = name
    made_by = mask.producer()
    graph.insert_before(graph[0], node) if made_by is None else graph.insert_after(made_by, node)

    return node.outputs[0]


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)

"""How the graph holds attention, GELU and recurrence, for which torch's exporter would write many nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx.ops import symbolic
from torch.overrides import TorchFunctionMode

from rekd_edge.modeling.encoders.recurrent import read_both_ways
from rekd_edge.modeling.masking import HIDDEN

__all__ = ["CONTRIB", "GraphOperators"]

CONTRIB = "com.microsoft"
"""https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md"""


class GraphOperators(TorchFunctionMode):
    """While it is active, replaces functions that a model calls with the nodes that the graph should hold."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return REPLACED.get(func, func)(*args, **(kwargs or {}))


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, scale: float | None = None, **_: Any
) -> Tensor:
    """`scaled_dot_product_attention` as one node, between reshapes that `fusion.join_attention` removes.

    Args:
        query: [batch, heads, positions, size].
        key: likewise.
        value: likewise.
        attn_mask: additive bias [batch, 1, 1, positions], or None.
        scale: factor of the products; 1 / √size by default.
    """
    heads, size = query.shape[1], query.shape[3]
    inputs: list[Tensor | None] = [each.transpose(1, 2).flatten(2) for each in (query, key, value)]
    if attn_mask is not None:
        inputs += [None, (attn_mask == 0).flatten(1).int()]  # no bias; visible positions [batch, positions]

    attended = symbolic(
        f"{CONTRIB}::MultiHeadAttention",
        inputs,
        {"num_heads": heads, "mask_filter_value": HIDDEN, "scale": size**-0.5 if scale is None else scale},
        dtype=query.dtype,
        shape=(query.shape[0], query.shape[2], heads * size),
        version=1,
    )
    return attended.unflatten(2, (heads, size)).transpose(1, 2)


def gelu(features: Tensor, approximate: str = "none") -> Tensor:
    """GELU as one node, which ONNX itself has from opset 20 on."""
    assert approximate == "none"
    return symbolic(f"{CONTRIB}::Gelu", [features], dtype=features.dtype, shape=features.shape, version=1)


def lstm(module: Any, hidden: Tensor, lengths: Tensor) -> Tensor:
    """`read_both_ways` as a node that takes the length of every row; a packed sequence would fix the batch.

    https://onnx.ai/onnx/operators/onnx__LSTM.html
    """
    size = module.hidden_size

    def of_both(name: str) -> Tensor:
        """[2, 4 · size, …] with ONNX's order of gates (i o f c); torch has i f c o."""
        both = torch.stack([getattr(module, f"{name}_l0{direction}") for direction in ("", "_reverse")])
        gates = both.unflatten(1, (4, size)).index_select(1, torch.tensor([0, 3, 1, 2]))
        return gates.flatten(1, 2)

    bias = torch.cat([of_both("bias_ih"), of_both("bias_hh")], dim=1)
    states = symbolic(
        "LSTM",
        [hidden.transpose(0, 1), of_both("weight_ih"), of_both("weight_hh"), bias, lengths.int()],
        {"hidden_size": size, "direction": "bidirectional"},
        dtype=hidden.dtype,
        shape=(hidden.shape[1], 2, hidden.shape[0], size),
        version=14,
    )
    return states.permute(2, 0, 1, 3).flatten(2)


REPLACED: dict[Callable[..., Any], Callable[..., Tensor]] = {
    nn.functional.scaled_dot_product_attention: attention,
    nn.functional.gelu: gelu,
    read_both_ways: lstm,
}
"""What stands in the graph for which function."""

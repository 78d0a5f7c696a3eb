"""A rationale model as one ONNX graph: generator, margin, argmax mask, masked predictor."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx
import torch
from torch import OptionalType, Tensor, nn

from rekd_edge.export.fusion import fuse, optimise
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.encoders import recurrent
from rekd_edge.modeling.masking import HIDDEN

__all__ = ["INPUTS", "OPSET", "OUTPUTS", "export_graph", "graph_io"]

OPSET = 18
INPUTS: dict[str, dict[str, Any]] = {
    "text": {
        "input_ids": {"dtype": "int64", "shape": ["batch", "sequence"]},
        "attention_mask": {"dtype": "int64", "shape": ["batch", "sequence"]},
    },
    "image": {"pixel_values": {"dtype": "float32", "shape": ["batch", 3, "height", "width"]}},
}
OUTPUTS: dict[str, dict[str, Any]] = {
    "logits": {"dtype": "float32", "shape": ["batch", "classes"]},
    "rationale_mask": {"dtype": "bool", "shape": ["batch", "features"]},
    "selection_margin": {"dtype": "float32", "shape": ["batch", "features"]},
}


class _Pipeline(nn.Module):
    """Positional inputs in, the contract's outputs out."""

    def __init__(self, model: RationaleModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        output = self.model(**dict(zip(INPUTS[self.model.config.task], inputs, strict=True)))
        return output.logits, output.mask, output.margin, *self.model.extra_outputs(output).values()


def export_graph(model: RationaleModel, path: Path, target: str = "cpu") -> None:
    """Write the fp32 graph of a model in `eval()` mode, optimised; batch and sequence stay dynamic.

    Args:
        model: a loaded run.
        path: the `.onnx` file to write.
        target: `cpu` gets ONNX Runtime's fused operators; `mobile` and `web` standard ONNX operators alone.
    """
    fused = target == "cpu"
    _trace(model, path, fused)
    traced = onnx.load(path)
    onnx.save(fuse(traced) if fused else optimise(traced, extended=False), path)


def _trace(model: RationaleModel, path: Path, fused: bool) -> None:
    """Write the graph as torch gives it, attention as one node where it is to be `fused`."""
    task = model.config.task
    outputs = {**OUTPUTS, **model.EXTRA_OUTPUTS}
    varying = {"batch": "batch", "sequence": "sequence", **({"features": "sequence"} if task == "text" else {})}
    dynamic = {
        name: {axis: varying[size] for axis, size in enumerate(io["shape"]) if size in varying}
        for name, io in {**INPUTS[task], **outputs}.items()
    }
    attention = patch.object(nn.functional, "scaled_dot_product_attention", _fused_attention)
    recurrence = patch.object(recurrent, "read_both_ways", _traced_recurrence)
    with warnings.catch_warnings(), recurrence, attention if fused else nullcontext():
        warnings.simplefilter("ignore")  # tracer notes on shapes that are fixed on purpose
        torch.onnx.export(
            _Pipeline(model).eval(),
            example_inputs(model),
            str(path),
            input_names=list(INPUTS[task]),
            output_names=list(outputs),
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )


class _Attention(torch.autograd.Function):
    """Attention that exports as `com.microsoft.MultiHeadAttention`: one node in place of about twenty.

    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, heads: int) -> Tensor:
        """Shapes only: [batch, positions, hidden], `visible` int32 [batch, positions]; the graph computes."""
        return query.clone()

    @staticmethod
    def symbolic(g: Any, query: Any, key: Any, value: Any, visible: Any, heads: int) -> Any:
        none = g.op("prim::Constant")
        none.setType(OptionalType.ofTensor())
        inputs = [query, key, value] if visible is None else [query, key, value, none, visible]
        return g.op(
            "com.microsoft::MultiHeadAttention", *inputs, num_heads_i=heads, mask_filter_value_f=HIDDEN
        ).setType(query.type())


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any) -> Tensor:
    """`scaled_dot_product_attention` of [batch, heads, positions, size] with a bias [batch, 1, 1, positions]."""
    heads, size = int(query.shape[1]), int(query.shape[3])
    visible = None if attn_mask is None else (attn_mask == 0).flatten(1).int()
    merged = [each.transpose(1, 2).flatten(2) for each in (query, key, value)]
    return _Attention.apply(*merged, visible, heads).unflatten(2, (heads, size)).transpose(1, 2)


class _Recurrence(torch.autograd.Function):
    """A bidirectional LSTM that exports as ONNX's own node, which takes the length of every row: torch's export of a
    packed sequence fixes the batch.

    https://onnx.ai/onnx/operators/onnx__LSTM.html
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor, lengths: Tensor, size: int
    ) -> Tensor:
        """Shapes only: [positions, batch, hidden] to [positions, 2, batch, size]; the graph computes."""
        return hidden.unflatten(2, (2, size)).transpose(1, 2).clone()

    @staticmethod
    def symbolic(g: Any, hidden: Any, weight: Any, recurrence: Any, bias: Any, lengths: Any, size: int) -> Any:
        inputs = [hidden, weight, recurrence, bias, lengths]
        states = g.op("LSTM", *inputs, hidden_size_i=size, direction_s="bidirectional")
        return states.setType(hidden.type().with_sizes([None, 2, None, size]))


def _traced_recurrence(lstm: Any, hidden: Tensor, lengths: Tensor) -> Tensor:
    """`read_both_ways` as one node."""

    def of_both(name: str) -> Tensor:
        """[2, 4 · size, …] with ONNX's order of gates (i o f c); torch has i f c o."""
        directions = [getattr(lstm, f"{name}_l0{direction}").chunk(4) for direction in ("", "_reverse")]
        return torch.stack([torch.cat([i, o, f, c]) for i, f, c, o in directions])

    bias = torch.cat([of_both("bias_ih"), of_both("bias_hh")], dim=1)
    weights = of_both("weight_ih"), of_both("weight_hh"), bias
    states = _Recurrence.apply(hidden.transpose(0, 1), *weights, lengths.int(), lstm.hidden_size)
    return states.permute(2, 0, 1, 3).flatten(2)


def example_inputs(model: RationaleModel) -> tuple[Tensor, ...]:
    """Two rows that differ in length, to trace with."""
    config = model.config
    if config.image is not None:
        return (torch.zeros(2, 3, config.image["height"], config.image["width"]),)
    ids = torch.arange(2 * 8).reshape(2, 8) % config.predictor["vocab_size"]
    attention = torch.ones_like(ids)
    attention[1, 5:] = 0
    return ids, attention


def graph_io(model: RationaleModel) -> dict[str, Any]:
    """Inputs and outputs as the manifest lists them."""
    outputs = {**OUTPUTS, **model.EXTRA_OUTPUTS}
    return {
        "opset": OPSET,
        "inputs": [{"name": name, **io} for name, io in INPUTS[model.config.task].items()],
        "outputs": [{"name": name, **io} for name, io in outputs.items()],
    }

"""A rationale model as one ONNX graph: generator, margin, argmax mask, masked predictor."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rekd_edge.modeling import RationaleModel

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

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.model(**dict(zip(INPUTS[self.model.config.task], inputs, strict=True)))
        return output.logits, output.mask, output.margin


def export_graph(model: RationaleModel, path: Path) -> None:
    """Trace a model in `eval()` mode and write the graph; batch and sequence stay dynamic.

    Args:
        model: a loaded run.
        path: the `.onnx` file to write.
    """
    task = model.config.task
    dynamic = {
        name: {axis: size for axis, size in enumerate(io["shape"]) if size in ("batch", "sequence")}
        for name, io in {**INPUTS[task], **OUTPUTS}.items()
    }
    if task == "text":
        dynamic["rationale_mask"][1] = dynamic["selection_margin"][1] = "sequence"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracer notes on shapes that are fixed on purpose
        torch.onnx.export(
            _Pipeline(model).eval(),
            example_inputs(model),
            str(path),
            input_names=list(INPUTS[task]),
            output_names=list(OUTPUTS),
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )


def example_inputs(model: RationaleModel) -> tuple[Tensor, ...]:
    """Two rows that differ in length, to trace with."""
    config = model.config
    if config.image is not None:
        return (torch.zeros(2, 3, config.image["height"], config.image["width"]),)
    ids = torch.arange(2 * 8).reshape(2, 8) % config.predictor["vocab_size"]
    attention = torch.ones_like(ids)
    attention[1, 5:] = 0
    return ids, attention


def graph_io(task: str) -> dict[str, Any]:
    """Inputs and outputs as the manifest lists them."""
    return {
        "opset": OPSET,
        "inputs": [{"name": name, **io} for name, io in INPUTS[task].items()],
        "outputs": [{"name": name, **io} for name, io in OUTPUTS.items()],
    }

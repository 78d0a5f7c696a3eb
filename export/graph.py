"""A rationale model as one ONNX graph: generator, margin, argmax mask, masked predictor."""

from __future__ import annotations

import logging
import sys
import warnings
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import Sequential, common
from torch import Tensor, nn

from rekd_edge.export.fusion import fuse
from rekd_edge.export.operators import GraphOperators
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
DYNAMIC = ("batch", "sequence")
MODULES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter notes what modules a node comes from, outermost first."""


class _Pipeline(nn.Module):
    """Positional inputs in, the contract's outputs out."""

    def __init__(self, model: RationaleModel) -> None:
        super().__init__()
        self.model = model
        self.operators = GraphOperators()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        with self.operators:
            output = self.model(**dict(zip(INPUTS[self.model.config.task], inputs, strict=True)))
            return output.logits, output.mask, output.margin, *self.model.extra_outputs(output).values()


def export_graph(model: RationaleModel, path: Path) -> None:
    """Write the fp32 graph of a model in `eval()` mode, optimised; batch and sequence stay dynamic.

    Args:
        model: a loaded run.
        path: the `.onnx` file to write.
    """
    ir.save(fuse(trace(model)), path)


def trace(model: RationaleModel) -> ir.Model:
    """The graph as torch's exporter writes it; every node is named after its module."""
    inputs = INPUTS[model.config.task]
    dynamic = tuple({axis: size for axis, size in enumerate(io["shape"]) if size in DYNAMIC} for io in inputs.values())

    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            _Pipeline(model).eval(),
            example_inputs(model),
            input_names=list(inputs),
            output_names=[*OUTPUTS, *model.EXTRA_OUTPUTS],
            dynamic_shapes=(dynamic,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None

    for number, node in enumerate(program.model.graph):
        modules = literal_eval(node.metadata_props.get(MODULES, "['']"))
        node.name = f"{modules[-2:][0]}/{number}/{node.op_type}"

    tidy = [
        common.IdentityEliminationPass(),
        common.DeduplicateInitializersPass(size_limit=sys.maxsize),
        common.RemoveUnusedNodesPass(),
    ]
    return Sequential(*tidy)(program.model).model


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hides what nobody can act on: missing torchvision, axes that two inputs share, and torch's use of its own API."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "# The axis name: .* will not be used, since it shares", UserWarning)
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


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

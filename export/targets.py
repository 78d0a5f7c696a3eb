"""What a target's runtime must have to open a bundle. The graph itself is the same for every target.

A second graph of standard operators for the web would be slower there, and its int8 margins would differ: one graph
gives one answer (see docs/decisions.md, "One graph for every runtime").
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto

__all__ = ["TARGETS", "Target", "check_target"]

CONTRIB = "com.microsoft"
CONTRIB_OPERATORS = frozenset(
    {
        "Attention",
        "BiasGelu",
        "DynamicQuantizeMatMul",
        "FastGelu",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gelu",
        "MatMulIntegerToFloat",
        "MultiHeadAttention",
        "QuickGelu",
    }
)
"""Contributed operators that the CPU provider has in every package of ONNX Runtime, the WASM build included:
https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md"""
LARGEST_BYTES = 2**31 - 1
"""Of one protobuf message."""


@dataclass(frozen=True)
class Target:
    """A runtime that bundles are made for."""

    runtime: str
    largest_bytes: int
    """Of `model.onnx`: a browser holds the file and the session's copy of its weights in 4 GB of WASM memory."""


TARGETS = {
    "cpu": Target("onnxruntime", LARGEST_BYTES),
    "mobile": Target("onnxruntime-android, onnxruntime-objc", LARGEST_BYTES),
    "web": Target("onnxruntime-web (WASM)", 2**30),
}


def check_target(model: ModelProto, folder: Path, target: str) -> tuple[dict[str, Any], list[str]]:
    """Check that the target's runtime can open a graph, and measure what a device has to load.

    Args:
        model: the final graph.
        folder: holds the graph and the tokenizer, and no other file yet.
        target: a key of `TARGETS`.

    Returns:
        `runtime`, `operators` (contributed ones alone), `bytes` and `compressed_bytes` of the files (zlib, as a web
        server compresses it); and one clause for each reason why the runtime cannot open it.
    """
    goal = TARGETS[target]
    used = sorted({node.op_type for node in model.graph.node if node.domain == CONTRIB})
    others = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx", CONTRIB})
    graph_bytes = model.ByteSize()

    failures = [f"{goal.runtime} has no operator {name}" for name in used if name not in CONTRIB_OPERATORS]
    failures += [f"{goal.runtime} has no operators of {domain}" for domain in others]
    if graph_bytes > goal.largest_bytes:
        failures.append(f"the graph has {graph_bytes:,} bytes, and {goal.runtime} opens at most {goal.largest_bytes:,}")

    contents = [path.read_bytes() for path in sorted(folder.iterdir())]
    measured = {
        "runtime": goal.runtime,
        "operators": used,
        "bytes": sum(map(len, contents)),
        "compressed_bytes": sum(len(zlib.compress(content)) for content in contents),
    }
    return measured, failures

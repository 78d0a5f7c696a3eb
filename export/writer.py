"""Writes a graph anew, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

__all__ = ["GraphWriter"]


class GraphWriter:
    """Writes a graph anew, node by node in order, with constants under fresh names and each scalar once."""

    def __init__(self, source: ModelProto) -> None:
        self.source = source
        self.nodes: list[NodeProto] = []
        self.constants = {tensor.name: tensor for tensor in source.graph.initializer}
        self._scalars: dict[tuple[str, float], str] = {}

    def add(self, operator: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def constant(self, stem: str, value: NDArray[np.generic]) -> str:
        """Store an array; returns its name."""
        name = f"{stem}_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        return name

    def scalar(self, value: np.generic) -> str:
        """Store a number; returns its name."""
        key = str(value.dtype), float(value)
        if key not in self._scalars:
            self._scalars[key] = self.constant("scalar", np.asarray(value))
        return self._scalars[key]

    def model(self) -> ModelProto:
        """What was written, without what no output needs."""
        needed = {value.name for value in self.source.graph.output}
        kept = []

        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)

        graph = helper.make_graph(
            kept[::-1],
            self.source.graph.name,
            self.source.graph.input,
            self.source.graph.output,
            [tensor for name, tensor in self.constants.items() if name in needed],
        )

        domains = {node.domain for node in kept}
        versions = {entry.domain: entry.version for entry in self.source.opset_import}
        imports = [helper.make_opsetid(domain, versions.get(domain, 1)) for domain in sorted(domains | {""})]

        return helper.make_model(graph, opset_imports=imports, ir_version=self.source.ir_version)

"""Tables of embeddings, and weights of LSTMs, in few bits.

* A large table, of which a text reads few rows: int8 with one scale a row, or 4 bits with one scale for each half of a
  row where training rounded it so (see `modeling.rounding`). The rows that are read are restored in the graph.
* A small table (positions), one that is added whole, and the weights of an LSTM: int8 in the file and float from the
  opening of a session on, where ONNX Runtime folds the Cast and Mul that restore them. Left to DequantizeLinear, which
  it does not fold, an LSTM's weights are no constants: it then multiplies a single row by another kernel than several,
  and a row's last digit depends on its batch.

Two 4-bit integers `low` and `high`, from -7 to 7, share the byte `16 · high + low`. Cast, Mul and Round take them
apart, which is faster than integer operators (74 µs for 256 rows of 256, against 86 by BitwiseAnd and BitShift, 116 by
GatherBlockQuantized, and 56 in int8) and part of every build of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rekd_edge.export.writer import GraphWriter
from rekd_edge.modeling.rounding import pack_halves, quantize_halves, quantize_rows, restore_halves

__all__ = ["is_large_matrix", "quantize_stored", "quantize_tables"]

SMALLEST = 4096
"""Weights and tables with fewer elements (class heads, token types) stay float."""
FEW = 64
"""Rows that tell whether a table was rounded to 4 bits, before all are read."""
RESTORED_WHOLE = 2048
"""Tables of up to as many rows are restored when a session is opened: it takes memory, and saves nodes."""


def quantize_tables(model: ModelProto) -> ModelProto:
    """Every table whose rows Gather or Slice reads in 4 or 8 bits."""
    writer = GraphWriter(model)
    stored: dict[str, _Table] = {}

    for node in model.graph.node:
        table = writer.constants.get(node.input[0]) if node.op_type in ("Gather", "Slice") else None
        if table is None or not is_large_matrix(table) or not _reads_rows(node, writer.constants):
            writer.nodes.append(node)
            continue

        if table.name not in stored:
            stored[table.name] = _Table(writer, table.name, numpy_helper.to_array(table))
        stored[table.name].read(node)

    return writer.model()


class _Table:
    """A table in few bits, and the nodes that restore it or the rows that are read of it."""

    def __init__(self, writer: GraphWriter, name: str, table: NDArray[np.float32]) -> None:
        self.writer = writer
        self.integers, self.scale, self.halves = name, name, False
        halves = _exact_halves(table)

        if halves is None:
            values, scale = quantize_rows(table)
        else:  # the lower of two integers will come out as sixteenths
            values, scale, self.halves = pack_halves(halves[0]), halves[1] * np.array([16, 1], np.float32), True

        self.integers, self.scale = writer.constant(name, values), writer.constant(name, scale)
        small = len(table) <= RESTORED_WHOLE
        self.whole = self._restore(self.integers, self.scale, f"{self.integers}_restored") if small else None

    def read(self, node: NodeProto) -> None:
        """Write what a Gather or Slice of the float table shall become."""
        writer, output, where = self.writer, node.output[0], node.input[1:]
        if self.whole is not None:
            writer.add(node.op_type, [self.whole, *where], output)
            return

        integers = writer.add(node.op_type, [self.integers, *where], f"{output}_integers")
        scale = writer.add(node.op_type, [self.scale, *where], f"{output}_scale")
        self._restore(integers, scale, output)

    def _restore(self, integers: str, scale: str, output: str) -> str:
        """Write the nodes from integers [..., bytes] and scales [..., 1 or 2] to floats [..., hidden]."""
        add = self.writer.add
        values = add("Cast", [integers], f"{output}_float", to=TensorProto.FLOAT)
        if not self.halves:
            return add("Mul", [values, scale], output)

        sixteenths = add("Mul", [values, self.writer.scalar(np.float32(1 / 16))], f"{output}_sixteenths")
        high = add("Round", [sixteenths], f"{output}_high")
        low = add("Sub", [sixteenths, high], f"{output}_low")
        steps = [f"{output}_low_scale", f"{output}_high_scale"]
        self.writer.nodes.append(helper.make_node("Split", [scale], steps, axis=-1, num_outputs=2))
        restored = [add("Mul", pair, f"{pair[0]}_half") for pair in zip((low, high), steps, strict=True)]

        return add("Concat", restored, output, axis=-1)


def _exact_halves(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """What `quantize_halves` makes of a table that 4 bits hold exactly; None for any other, which a few rows tell."""
    if table.shape[1] % 2:
        return None

    for rows in (table[:FEW], table):
        values, scale = quantize_halves(rows)
        if not np.array_equal(restore_halves(values, scale), rows):
            return None

    return values, scale


def quantize_stored(model: ModelProto, kept: Collection[str] = ()) -> ModelProto:
    """Int8 in the file, with one scale a row, for the weights of LSTMs and for tables that are added whole, except for
    nodes whose output is `kept`."""
    writer = GraphWriter(model)

    for original in model.graph.node:
        node = NodeProto.FromString(original.SerializeToString())
        places, axes = {"LSTM": ((1, 2), 3), "Add": ((0, 1), 2)}.get(node.op_type, ((), 0))
        if node.output[0] in kept:
            places = ()

        for place in places:
            tensor = writer.constants.get(node.input[place])
            if tensor is None or len(tensor.dims) != axes or np.prod(tensor.dims) < SMALLEST:
                continue

            weight = numpy_helper.to_array(tensor)
            values, scale = quantize_rows(weight.reshape(-1, weight.shape[-1]))
            integers = writer.constant(tensor.name, values.reshape(weight.shape))
            steps = writer.constant(tensor.name, scale.reshape(*weight.shape[:-1], 1))
            floats = writer.add("Cast", [integers], f"{integers}_float", to=TensorProto.FLOAT)
            node.input[place] = writer.add("Mul", [floats, steps], f"{integers}_restored")

        writer.nodes.append(node)

    return writer.model()


def is_large_matrix(tensor: TensorProto) -> bool:
    """Whether a constant is a matrix of floats that is worth fewer bits."""
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and np.prod(tensor.dims) >= SMALLEST


def _reads_rows(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Whether a Gather or Slice works along axis 0."""
    if node.op_type == "Gather":
        return not any(item.i for item in node.attribute if item.name == "axis")
    axes = constants.get(node.input[3]) if len(node.input) > 3 else None
    return axes is not None and not numpy_helper.to_array(axes).any()

"""Post-training int8 whose answer for a row never depends on the other rows, the padding or the threads.

ONNX Runtime's dynamic quantisation takes one activation scale over the whole batch. Here every activation that enters
an int8 product is quantised in one of two ways instead, chosen by the node that makes it:

* LayerNormalization, where there is calibration data: a static grid per channel (see `int8.static_grid`), folded into
  the gain and bias of a second LayerNormalization, then one QuantizeLinear of scale 1, which costs next to nothing;
* MultiHeadAttention, where there is calibration data: a static grid per channel too, folded into the projection of
  its values, because the weights of attention sum to one;
* anything else (Gelu, pooled rows): one scale per row, taken inside the graph from that row alone, as ZeroQuant does
  token by token (arXiv 2206.01861).

Activations are uint8 and weights int8, which is the one pairing that ONNX Runtime computes fast on every CPU.

Tables of embeddings and the weights of LSTMs are stored in few bits (see `tables`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization.onnx_model import ONNXModel

from rekd_edge.export.fusion import consumers
from rekd_edge.export.int8 import FloatArray, Grid, Seen, quantize_weight, static_grid
from rekd_edge.export.tables import is_large_matrix, quantize_stored, quantize_tables
from rekd_edge.export.writer import GraphWriter

__all__ = ["quantize", "scheme"]

Feed = Mapping[str, NDArray[np.generic]]
"""One unpadded row, each array with a batch axis of 1."""

CONTRIB = "com.microsoft"
BOUNDED_BELOW = ("Gelu", "FastGelu", "QuickGelu", "Relu")
LOWEST = 0.17  # none of these goes below -0.17
MIDDLE = 128  # zero point of an activation with both signs
NEAR_BOTTOM = 32  # zero point of one that is bounded below


@dataclass(frozen=True)
class Linear:
    """One product with a constant weight: `output = input @ weight + bias`."""

    input: str
    product: str
    """The MatMul's own output: `output` without the bias."""
    output: str
    weight: FloatArray  # [in, out]
    bias: FloatArray  # [out]


@dataclass(frozen=True)
class Activation:
    """The integers that stand for a tensor: `(integers - zero) * step`, times `row_peak`, or on a `grid`."""

    integers: str
    zero: int
    step: float = 1.0
    row_peak: str | None = None
    """The tensor of what a step is multiplied with in each row, [..., 1]."""
    grid: Grid | None = None


def scheme(calibrated: bool, target: str, recurrent: bool = False) -> str:
    """How activations get their scales, in words for the manifest; `recurrent` models hold an LSTM."""
    words = "int8, one activation scale a row"
    if calibrated:
        static = "LayerNormalization and attention" if target == "cpu" else "LayerNormalization"
        words = f"int8, static activation scales a channel after {static}, one scale a row elsewhere"
    return f"{words}; LSTMs compute in float from int8 weights" if recurrent else words


def quantize(model: ModelProto, feeds: Sequence[Feed], target: str, in_float: Collection[str] = ()) -> ModelProto:
    """An fp32 graph as int8.

    Args:
        model: as `export_graph` writes it for the same target; it is not changed.
        feeds: calibration inputs, one unpadded row each; none for row-wise scales everywhere.
        target: `cpu` gets ONNX Runtime's fused operators; `mobile` and `web` standard ONNX operators alone.
        in_float: tensors whose whole computation stays in float, apart from the embedding tables that it reads.
    """
    editor = ONNXModel(ModelProto.FromString(model.SerializeToString()))
    editor.replace_gemm_with_matmul()
    kept = needed_for(editor.model, in_float)
    for node in editor.model.graph.node:  # by tanh: twice as fast and within 5e-4 of the exact one
        if node.op_type == "Gelu" and node.domain == CONTRIB and node.output[0] not in kept:
            node.op_type = "FastGelu"

    products = quantize_products(editor.model, feeds, fused=target == "cpu", kept=kept)
    return quantize_stored(quantize_tables(products), kept)


def needed_for(model: ModelProto, tensors: Collection[str]) -> set[str]:
    """The outputs of every node that some tensors are computed from."""
    maker = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    waiting = [name for name in tensors if name in maker]

    while waiting:
        if (name := waiting.pop()) not in found:
            found.update(maker[name].output)
            waiting += [source for source in maker[name].input if source in maker]

    return found


def quantize_products(model: ModelProto, feeds: Sequence[Feed], fused: bool, kept: Collection[str] = ()) -> ModelProto:
    """Int8 weights and activations for every product with a constant weight (MatMul, and the Add of its bias), but for
    those whose output is `kept`."""
    linears = [linear for linear in find_linears(model) if linear.product not in kept]
    producer = {name: node for node in model.graph.node for name in node.output}
    by_output = {linear.output: linear for linear in linears}
    seen = observe(model, list(dict.fromkeys(linear.input for linear in linears)), feeds)

    norms = _normalised(linears, producer, model)
    values = _value_projections(linears, producer, consumers(model))
    grids = _static_grids(linears, norms, values, seen)

    for name in values.keys() & grids.keys():
        linear, grid = by_output[values[name]], grids[name]
        scaled = replace(linear, weight=linear.weight / grid.step, bias=(linear.bias - grid.shift) / grid.step)
        by_output[linear.output] = scaled

    products = {linear.product for linear in linears}
    writer = _Writer(model, fused)
    activations: dict[str, Activation] = {}

    def activation_of(source: str) -> Activation:
        """The integers of what enters a product, written once."""
        if source in activations:
            return activations[source]

        if source not in grids:
            bounded_below = source in producer and producer[source].op_type in BOUNDED_BELOW
            return writer.row_steps(source, bounded_below)
        if source in values:
            return writer.static_steps(source, grids[source])
        if norms[source] != source:  # the first rows of what was normalised
            whole = activation_of(norms[source])
            activations.setdefault(norms[source], whole)
            return replace(whole, integers=writer.again(producer[source], whole.integers))
        return writer.static_steps(writer.norm_in_steps(producer[source], grids[source]), grids[source])

    for node in model.graph.node:
        output = node.output[0]
        if output in by_output:
            linear, source = by_output[output], by_output[output].input
            activations[source] = activation_of(source)
            writer.product(linear, activations[source], seen.get(source))
        elif output not in products:
            writer.nodes.append(node)

    return writer.model()


def _normalised(linears: Sequence[Linear], producer: Mapping[str, NodeProto], model: ModelProto) -> dict[str, str]:
    """What enters products from LayerNormalization, or is a Slice of the positions of its output: that output."""
    axes = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer if list(each.dims) == [1]}
    positions = {name for name, axis in axes.items() if axis.tolist() == [1]}
    found = {}

    for name in dict.fromkeys(linear.input for linear in linears):
        source, node = name, producer.get(name)
        if node is not None and node.op_type == "Slice" and positions.intersection(node.input[3:4]):
            source, node = node.input[0], producer.get(node.input[0])
        if node is not None and node.op_type == "LayerNormalization":
            found[name] = source

    return found


def _static_grids(
    linears: Sequence[Linear], norms: Mapping[str, str], values: Collection[str], seen: Mapping[str, Seen]
) -> dict[str, Grid]:
    """The grid of every activation that has a static one; a Slice shares that of what it cuts."""
    weights: dict[str, list[FloatArray]] = defaultdict(list)
    stats: dict[str, Seen] = {}

    for linear in linears:
        name = norms.get(linear.input, linear.input)
        if (name in norms.values() or name in values) and linear.input in seen:
            if not weights[name] or linear.input == name:
                stats[name] = seen[linear.input]
            weights[name].append(linear.weight)

    grids = {
        name: static_grid(stats[name].low, stats[name].high, np.concatenate(weights[name], axis=1)) for name in stats
    }
    return grids | {name: grids[source] for name, source in norms.items() if source in grids}


def _value_projections(
    linears: Sequence[Linear], producer: Mapping[str, NodeProto], users: Mapping[str, list[NodeProto]]
) -> dict[str, str]:
    """Attention outputs that enter products alone, each with the projection that makes its values, used only there."""
    outputs = {linear.output for linear in linears}
    found = {}

    for name, count in Counter(linear.input for linear in linears).items():
        node = producer.get(name)
        if node is None or node.op_type != "MultiHeadAttention" or len(users[name]) != count:
            continue

        value = node.input[2]
        if value in outputs and len(users[value]) == 1:
            found[name] = value

    return found


def find_linears(model: ModelProto) -> list[Linear]:
    """The large products with a constant right operand, each with the Add of its bias where one follows."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    users = consumers(model)
    linears = []
    for node in model.graph.node:
        matrix = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if matrix is None or not is_large_matrix(matrix):
            continue
        weight = numpy_helper.to_array(matrix)
        product = output = node.output[0]
        bias = np.zeros(weight.shape[1], np.float32)
        if len(users[product]) == 1 and users[product][0].op_type == "Add" and product not in outputs:
            addition = users[product][0]
            other = constants.get(next((name for name in addition.input if name != product), ""))
            if other is not None and list(other.dims) == [weight.shape[1]]:
                output, bias = addition.output[0], numpy_helper.to_array(other)
        linears.append(Linear(node.input[0], product, output, weight, bias))
    return linears


def observe(model: ModelProto, tensors: Sequence[str], feeds: Iterable[Feed]) -> dict[str, Seen]:
    """Statistics of each channel of some tensors over every row of every feed; nothing without feeds."""
    probe = ModelProto.FromString(model.SerializeToString())
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    seen: dict[str, Seen] = {}
    for feed in feeds:
        for name, value in zip(tensors, session.run(list(tensors), dict(feed)) if tensors else [], strict=True):
            found = Seen.of(value.reshape(-1, value.shape[-1]))
            seen[name] = seen[name] + found if name in seen else found
    return seen


class _Writer(GraphWriter):
    """Writes int8 products, of ONNX Runtime's own operators where `fused`."""

    def __init__(self, source: ModelProto, fused: bool) -> None:
        super().__init__(source)
        self.fused = fused

    def norm_in_steps(self, norm: NodeProto, grid: Grid) -> str:
        """A second LayerNormalization whose output counts the steps of a grid: it is folded into gain and bias."""
        gain, bias = (numpy_helper.to_array(self.constants[name]) for name in norm.input[1:3])
        steps = f"{norm.output[0]}_steps"
        twin = NodeProto.FromString(norm.SerializeToString())
        twin.name = steps
        twin.input[1] = self.constant(norm.input[1], gain / grid.step)
        twin.input[2] = self.constant(norm.input[2], (bias - grid.shift) / grid.step)
        del twin.output[:]
        twin.output.append(steps)
        self.nodes.append(twin)
        return steps

    def static_steps(self, steps: str, grid: Grid) -> Activation:
        """The integers of a tensor that counts steps of a grid already."""
        one, zero = self.scalar(np.float32(1)), self.scalar(np.uint8(MIDDLE))
        return Activation(self.add("QuantizeLinear", [steps, one, zero], f"{steps}_uint8"), MIDDLE, grid=grid)

    def again(self, node: NodeProto, source: str) -> str:
        """The same operator on another tensor."""
        return self.add(node.op_type, [source, *node.input[1:]], f"{source}_{node.op_type.lower()}")

    def row_steps(self, source: str, bounded_below: bool) -> Activation:
        """The integers of a tensor with one step a row, from its largest magnitude (its largest value where the
        smallest is known)."""

        def add(operator: str, inputs: Sequence[str], part: str, **attributes: Any) -> str:
            return self.add(operator, inputs, f"{source}_{part}", **attributes)

        zero = NEAR_BOTTOM if bounded_below else MIDDLE
        step = 1 / (255 - zero)
        smallest_peak = LOWEST / zero / step if bounded_below else 1e-12 / step
        magnitude = source if bounded_below else add("Abs", [source], "magnitude")
        largest = add("ReduceMax", [magnitude, self.constant("axis", np.array([-1]))], "largest", keepdims=1)
        peak = add("Max", [largest, self.scalar(np.float32(smallest_peak))], "peak")  # [..., 1]
        shares = add("Div", [source, peak], "shares")
        result = add("QuantizeLinear", [shares, self.scalar(np.float32(step)), self.scalar(np.uint8(zero))], "uint8")
        return Activation(result, zero, step, row_peak=peak)

    def product(self, linear: Linear, activation: Activation, seen: Seen | None = None) -> None:
        """`linear` from integers: one int8 product, then scales and bias; `seen` of its input decides the rounding."""
        weight, bias, grid, output = linear.weight, linear.bias, activation.grid, linear.output
        if grid is not None:
            bias = bias + grid.shift @ weight  # the shift meets the exact weights, not the rounded ones
            weight = weight * grid.step[:, None]
        products = None if seen is None else seen.products if grid is None else seen.in_steps(grid)
        values, scale = quantize_weight(weight, products)
        operands = [activation.integers, self.constant(output, values)]
        scales, zero = self.constant(output, scale), self.scalar(np.uint8(activation.zero))
        added = self.constant(output, bias)
        step = self.scalar(np.float32(activation.step))

        if self.fused and activation.row_peak is None:
            self.add("MatMulIntegerToFloat", [*operands, step, scales, zero, "", added], output, CONTRIB)
            return

        if self.fused:
            scaled = self.add("MatMulIntegerToFloat", [*operands, step, scales, zero], f"{output}_scaled", CONTRIB)
        else:
            sums = self.add("MatMulInteger", [*operands, zero], f"{output}_int32")
            floats = self.add("Cast", [sums], f"{output}_float", to=TensorProto.FLOAT)
            steps = self.constant(output, scale * np.float32(activation.step))
            scaled = self.add("Mul", [floats, steps], f"{output}_scaled")

        if activation.row_peak is not None:
            scaled = self.add("Mul", [scaled, activation.row_peak], f"{output}_rows")
        self.add("Add", [scaled, added], output)

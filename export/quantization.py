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
from typing import Any, Protocol

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnxruntime.quantization.onnx_model import ONNXModel

from rekd_edge.export.int8 import ActivationStats, FloatArray, QuantGrid, quantize_weight, static_grid
from rekd_edge.export.nodes import needed_for
from rekd_edge.export.parity import Feed
from rekd_edge.export.tables import is_large_matrix, quantize_stored, quantize_tables
from rekd_edge.export.writer import GraphWriter
from rekd_edge.modeling import RationaleModel

__all__ = ["Quantized", "Scheme", "int8", "quantize"]

CONTRIB = "com.microsoft"
BOUNDED_BELOW = ("Gelu", "FastGelu", "QuickGelu", "Relu")
LOWEST = 0.17  # none of these goes below -0.17
MIDDLE = 128  # zero point of an activation with both signs
NEAR_BOTTOM = 32  # zero point of one that is bounded below
OBSERVED_AT_ONCE = 4096  # rows of a tensor


@dataclass(frozen=True)
class Linear:
    """One product with a constant weight: `output = input @ weight + bias`."""

    input: str
    product: str
    """The MatMul's own output: `output` without the bias."""
    output: str
    weight: FloatArray  # [in, out]
    bias: FloatArray  # [out]
    name: str
    """The MatMul's, which begins with the module that it comes from."""


@dataclass(frozen=True)
class Activation:
    """The integers that stand for a tensor: `(integers - zero) * step`, times `row_peak`, or on a `grid`."""

    integers: str
    zero: int
    step: float = 1.0
    row_peak: str | None = None
    """The tensor of what a step is multiplied with in each row, [..., 1]."""
    grid: QuantGrid | None = None


@dataclass(frozen=True)
class Quantized:
    """What a scheme makes of a graph."""

    graph: ModelProto
    facts: dict[str, Any]
    """For the manifest: `scheme`, in words, and what else it records."""


class Scheme(Protocol):
    """What quantises a graph: an entry of `rekd_edge.precisions` names it."""

    def __call__(self, graph: ModelProto, calibration: Sequence[Feed], model: RationaleModel) -> Quantized:
        """Quantise an fp32 graph, which may be changed.

        Args:
            graph: as `export_graph` writes it.
            calibration: inputs, one unpadded row each; none where no data is at hand.
            model: what the graph was traced from.
        """


def int8(graph: ModelProto, calibration: Sequence[Feed], model: RationaleModel) -> Quantized:
    """Int8 weights and activations; a generator that reads the predictor's embeddings stays in float."""
    in_float = ["selection_margin"] if model.generator_in_float else []
    words = "int8, one activation scale a row"
    if calibration:
        words = (
            "int8, static activation scales a channel after LayerNormalization and attention, one scale a row elsewhere"
        )
    if model.predictor.encoder.recurrent:
        words += "; LSTMs compute in float from int8 weights"

    facts = {"scheme": words, "generator": "float" if in_float else "int8"}
    return Quantized(quantize(graph, calibration, in_float), facts)


def quantize(model: ModelProto, feeds: Sequence[Feed], in_float: Collection[str] = ()) -> ModelProto:
    """An fp32 graph as int8.

    Args:
        model: as `export_graph` writes it; it is not changed.
        feeds: calibration inputs, one unpadded row each; none for row-wise scales everywhere.
        in_float: tensors whose whole computation stays in float, apart from the embedding tables that it reads.
    """
    editor = ONNXModel(ModelProto.FromString(model.SerializeToString()))
    editor.replace_gemm_with_matmul()
    nodes = editor.model.graph.node
    kept = {name for i in needed_for(editor.model, in_float) for name in nodes[i].output}

    for node in nodes:  # by tanh: twice as fast and within 5e-4 of the exact one
        if node.op_type == "Gelu" and node.domain == CONTRIB and node.output[0] not in kept:
            node.op_type = "FastGelu"

    products = quantize_products(editor.model, feeds, kept)
    return quantize_stored(quantize_tables(products), kept)


def quantize_products(model: ModelProto, feeds: Sequence[Feed], kept: Collection[str] = ()) -> ModelProto:
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
    writer = _Writer(model)
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
    linears: Sequence[Linear], norms: Mapping[str, str], values: Collection[str], seen: Mapping[str, ActivationStats]
) -> dict[str, QuantGrid]:
    """The grid of every activation that has a static one; a Slice shares that of what it cuts."""
    weights: dict[str, list[FloatArray]] = defaultdict(list)
    stats: dict[str, ActivationStats] = {}

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
        linears.append(Linear(node.input[0], product, output, weight, bias, node.name))
    return linears


def observe(model: ModelProto, tensors: Sequence[str], feeds: Iterable[Feed]) -> dict[str, ActivationStats]:
    """Statistics of each channel of some tensors over every row of every feed; nothing without feeds."""
    if not tensors:
        return {}

    probe = ModelProto.FromString(model.SerializeToString())
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])

    seen: dict[str, ActivationStats] = {}
    waiting: dict[str, list[FloatArray]] = {name: [] for name in tensors}

    def take(name: str) -> None:
        """Add the waiting rows; many at once, because a sum of [channels, channels] costs as much as hundreds."""
        found = ActivationStats.of(np.concatenate(waiting[name]))
        seen[name] = seen[name] + found if name in seen else found
        waiting[name].clear()

    for feed in feeds:
        for name, value in zip(tensors, session.run(list(tensors), dict(feed)), strict=True):
            waiting[name].append(value.reshape(-1, value.shape[-1]))
            if sum(map(len, waiting[name])) >= OBSERVED_AT_ONCE:
                take(name)

    for name in tensors:
        if waiting[name]:
            take(name)

    return seen


def consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each tensor; an empty list for one that none reads."""
    users: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            users[name].append(node)
    return users


class _Writer(GraphWriter):
    """Writes int8 products."""

    def norm_in_steps(self, norm: NodeProto, grid: QuantGrid) -> str:
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

    def static_steps(self, steps: str, grid: QuantGrid) -> Activation:
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

    def product(self, linear: Linear, activation: Activation, seen: ActivationStats | None = None) -> None:
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

        operands += [step, scales, zero]
        if activation.row_peak is None:
            self.add("MatMulIntegerToFloat", [*operands, "", added], output, CONTRIB)
            return

        scaled = self.add("MatMulIntegerToFloat", operands, f"{output}_scaled", CONTRIB)
        rows = self.add("Mul", [scaled, activation.row_peak], f"{output}_rows")
        self.add("Add", [rows, added], output)

"""Post-training int8 whose answer for a row never depends on the other rows, the padding or the threads.

Every activation that enters an int8 product is quantised in one of two ways, chosen by the node that makes it:

* LayerNormalization and MultiHeadAttention: a static affine map per channel (a SmoothQuant-type scale, Xiao et al.
  2023, and a channel shift, Wei et al. 2023), folded into a second LayerNormalization's gain and bias or into the
  value projection, then one QuantizeLinear of scale 1;
* anything else (Gelu, pooled rows): one scale per row, taken inside the graph from that row alone.

Without calibration rows every activation takes the second way. Weights are int8 with one scale per output channel,
large enough that no pair of products saturates the 16-bit sums of x86 without VNNI, so every machine computes the
same integers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

FloatArray = NDArray[np.float32]
Feed = Mapping[str, NDArray[np.generic]]

CONTRIB = "com.microsoft"
# SkipLayerNormalization is slower than Add and LayerNormalization on CPUs; BiasGelu hides the bias from `find_linears`.
UNWANTED_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion", "BiasSkipLayerNormFusion", "EmbedLayerNormFusion"]
GELU_MINIMUM = 0.17  # gelu(x) > -0.17
GELU_ZERO_POINT = 32
MIDDLE = 128
SMOOTHING = 0.8
LARGEST_PAIR = 127.5  # |w0 + w1| of neighbours along K; 255 * 128 < 2**15


@dataclass(frozen=True)
class Scheme:
    """What the target can do."""

    fused: bool = True
    """Use ONNX Runtime's contributed operators."""
    bounded: bool = True
    """Keep pairs of weights from saturating 16-bit sums."""


@dataclass(frozen=True)
class Linear:
    """One product with constant weight: `output = input @ weight + bias`."""

    nodes: tuple[NodeProto, ...]
    input: str
    output: str
    weight: FloatArray  # [in, out]
    bias: FloatArray  # [out]


@dataclass(frozen=True)
class Grid:
    """A static int8 grid: value = shift + step * integer, both [channels]."""

    step: FloatArray
    shift: FloatArray


@dataclass(frozen=True)
class ChannelRange:
    """Smallest and largest value of every channel, [channels] each."""

    low: FloatArray
    high: FloatArray


def quantize(model: ModelProto, feeds: Iterable[Feed], target: str, isa: str) -> ModelProto:
    """An fp32 graph as int8.

    Args:
        model: as `export_graph` writes it.
        feeds: calibration inputs, one unpadded row each; none for row-wise scales everywhere.
        target: `cpu` gets ONNX Runtime's fused operators; `mobile` and `web` standard ONNX operators alone.
        isa: `avx512_vnni` and `arm64` have no 16-bit sums to saturate, so their weights use the full int8 range.
    """
    scheme = Scheme(fused=target == "cpu", bounded=isa in ("auto", "avx2"))
    if scheme.fused:
        model = approximate_gelu(fuse(model))
    return quantize_embeddings(quantize_matmuls(model, feeds, scheme))


def fuse(model: ModelProto) -> ModelProto:
    """ONNX Runtime's own offline fusions, without those that make this kind of graph slower."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "fused.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=UNWANTED_FUSIONS
        )
        return onnx.load(options.optimized_model_filepath)


def find_linears(model: ModelProto) -> list[Linear]:
    """The MatMul (+ Add) and Gemm nodes whose right operand is a constant matrix."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    consumers = _consumers(model)
    outputs = {value.name for value in model.graph.output}

    def vector(name: str, size: int) -> FloatArray | None:
        if name not in constants or list(constants[name].dims) != [size]:
            return None
        return numpy_helper.to_array(constants[name]).astype(np.float32)

    linears = []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in constants:
            continue
        weight = numpy_helper.to_array(constants[node.input[1]]).astype(np.float32)
        if weight.ndim != 2:
            continue
        if node.op_type == "Gemm":
            attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
                continue
            weight = weight.T if attributes.get("transB", 0) else weight
            bias = (
                vector(node.input[2], weight.shape[1]) if len(node.input) > 2 else np.zeros(weight.shape[1], np.float32)
            )
            if bias is not None:
                linears.append(Linear((node,), node.input[0], node.output[0], weight, bias))
            continue
        nodes: tuple[NodeProto, ...] = (node,)
        output, bias = node.output[0], np.zeros(weight.shape[1], np.float32)
        followers = consumers.get(output, [])
        if len(followers) == 1 and followers[0].op_type == "Add" and output not in outputs:
            other = next((name for name in followers[0].input if name != output), output)
            found = vector(other, weight.shape[1])
            if found is not None:
                nodes, output, bias = (node, followers[0]), followers[0].output[0], found
        linears.append(Linear(nodes, node.input[0], output, weight, bias))
    return linears


def approximate_gelu(model: ModelProto) -> ModelProto:
    """Gelu by tanh (within 5e-4 of the exact one), which ONNX Runtime computes in half the time."""
    result = ModelProto()
    result.CopyFrom(model)
    for node in result.graph.node:
        if node.op_type == "Gelu" and node.domain == CONTRIB:
            node.op_type = "FastGelu"
    return result


def channel_ranges(model: ModelProto, tensors: Iterable[str], feeds: Iterable[Feed]) -> dict[str, ChannelRange]:
    """Ranges over every row of every feed; give feeds without padding, which would widen them."""
    names = sorted(set(tensors))
    probe = ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in probe.graph.output}
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    ranges: dict[str, ChannelRange] = {}
    for feed in feeds:
        for name, value in zip(names, session.run(names, dict(feed)), strict=True):
            rows = value.reshape(-1, value.shape[-1])
            low, high = rows.min(0), rows.max(0)
            if name in ranges:
                low, high = np.minimum(low, ranges[name].low), np.maximum(high, ranges[name].high)
            ranges[name] = ChannelRange(low, high)
    return ranges


def quantize_weight(weight: FloatArray, bounded: bool = True) -> tuple[NDArray[np.int8], FloatArray]:
    """[in, out] to int8 and scales [out]; bounded, no pair saturates `vpmaddubsw` for any uint8 activation."""
    scale = np.abs(weight).max(0) / 127
    if bounded:
        even = np.pad(weight, ((0, weight.shape[0] % 2), (0, 0)))
        scale = np.maximum(scale, np.abs(even[0::2] + even[1::2]).max(0) / LARGEST_PAIR)
    scale = np.maximum(scale, 1e-12).astype(np.float32)
    return np.clip(np.round(weight / scale), -127, 127).astype(np.int8), scale


def quantize_matmuls(
    model: ModelProto,
    feeds: Iterable[Feed] = (),
    scheme: Scheme = Scheme(),
    *,
    smoothing: float = SMOOTHING,
    smallest: int = 4096,
) -> ModelProto:
    """Int8 weights and activations for every constant-weight product of a fused graph.

    `feeds` are calibration inputs, one unpadded row each (none: row-wise scales everywhere). Weights of fewer than
    `smallest` elements (heads) stay float. Returns a new model.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    if scheme.fused:
        _ensure_domain(result)
    linears = {linear.output: linear for linear in find_linears(result) if linear.weight.size >= smallest}
    producer = {name: node for node in graph.node for name in node.output}
    consumers = _consumers(result)
    inputs = list(dict.fromkeys(linear.input for linear in linears.values()))
    norms = {name for name in inputs if name in producer and producer[name].op_type == "LayerNormalization"}
    products = {linear.nodes[0].output[0] for linear in linears.values()}
    contexts = {  # attention outputs that only feed products: their grid can be folded into the value projection
        name: producer[name].input[2]
        for name in inputs
        if name in producer
        and producer[name].op_type == "MultiHeadAttention"
        and producer[name].input[2] in linears
        and len(consumers[producer[name].input[2]]) == 1
        and all(user.output[0] in products for user in consumers[name])
    }
    feeds = list(feeds)
    ranges = channel_ranges(result, norms | set(contexts), feeds) if feeds else {}
    removed = {node.output[0] for linear in linears.values() for node in linear.nodes}

    grids: dict[str, Grid] = {}
    for source, seen in ranges.items():
        group = [linear for linear in linears.values() if linear.input == source]
        grids[source] = static_grid(seen, np.concatenate([linear.weight for linear in group], 1), smoothing)
    for source, value in contexts.items():
        if source in grids:  # attention rows sum to one, so the values' grid is the context's
            grid, linear = grids[source], linears[value]
            linears[value] = replace(
                linear, weight=linear.weight / grid.step, bias=(linear.bias - grid.shift) / grid.step
            )

    writer = _Writer(graph, scheme)
    made: list[NodeProto] = []
    for source in inputs:
        group = [linear for linear in linears.values() if linear.input == source]
        if source not in grids:
            after_gelu = source in producer and producer[source].op_type in ("Gelu", "FastGelu", "QuickGelu", "Relu")
            made += _row_group(writer, source, group, after_gelu)
            continue
        steps = source
        if source in norms:
            steps = f"{source}_steps"
            made.append(_norm_in_steps(writer, producer[source], grids[source], steps))
        made += _static_group(writer, steps, grids[source], group)
    rest = [node for node in graph.node if node.output[0] not in removed]
    del graph.node[:]
    graph.node.extend(rest + made)
    return _sorted_and_pruned(result)


def quantize_embeddings(model: ModelProto, *, smallest: int = 4096) -> ModelProto:
    """Int8 with one scale per row for the tables that Gather or Slice read along axis 0.

    Tables of fewer than `smallest` elements stay float. Returns a new model.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    writer = _Writer(graph, Scheme())
    tables = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and np.prod(tensor.dims) >= smallest
    }
    stored: dict[str, tuple[str, str]] = {}
    ordered: list[NodeProto] = []
    for node in graph.node:
        if not node.input or node.input[0] not in tables or not _reads_rows(node, writer):
            ordered.append(node)
            continue
        name = node.input[0]
        if name not in stored:
            table = numpy_helper.to_array(tables[name])
            scale = np.maximum(np.abs(table).max(1, keepdims=True) / 127, 1e-12).astype(np.float32)
            stored[name] = writer.constant(name, np.round(table / scale).astype(np.int8)), writer.constant(name, scale)
        values, scales = stored[name]
        output = node.output[0]
        ordered += [
            helper.make_node(node.op_type, [values, *node.input[1:]], [f"{output}_int8"]),
            helper.make_node(node.op_type, [scales, *node.input[1:]], [f"{output}_scale"]),
            helper.make_node("Cast", [f"{output}_int8"], [f"{output}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{output}_float", f"{output}_scale"], [output]),
        ]
    del graph.node[:]
    graph.node.extend(ordered)
    return _sorted_and_pruned(result)


def _reads_rows(node: NodeProto, writer: _Writer) -> bool:
    if node.op_type == "Gather":
        return all(item.i == 0 for item in node.attribute if item.name == "axis")
    return node.op_type == "Slice" and len(node.input) > 3 and writer.values(node.input[3]).tolist() == [0]


class _Writer:
    """Adds constants under fresh names, each distinct scalar once."""

    def __init__(self, graph: onnx.GraphProto, scheme: Scheme) -> None:
        self.graph = graph
        self.scheme = scheme
        self.count = 0
        self.scalars: dict[tuple[str, float], str] = {}

    def constant(self, stem: str, value: NDArray[np.generic]) -> str:
        self.count += 1
        name = f"{stem}_q{self.count}"
        value = value.astype(np.float32) if value.dtype == np.float64 else value
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def values(self, name: str) -> FloatArray:
        return numpy_helper.to_array(next(tensor for tensor in self.graph.initializer if tensor.name == name))

    def integers(self, *values: int) -> str:
        return self.constant("integers", np.array(values, np.int64))

    def scalar(self, value: np.generic) -> str:
        key = (str(value.dtype), float(value))
        if key not in self.scalars:
            self.scalars[key] = self.constant("scalar", np.asarray(value))
        return self.scalars[key]


def static_grid(seen: ChannelRange, weight: FloatArray, smoothing: float) -> Grid:
    """Shift to each channel's middle, then split the range between activation and weight [channels, out]."""
    shift = (seen.low + seen.high) / 2
    reach = np.maximum((seen.high - seen.low) / 2, 1e-5)
    smooth = reach**smoothing / np.maximum(np.abs(weight).max(1), 1e-5) ** (1 - smoothing)
    smooth = np.maximum(smooth, np.median(smooth) * 1e-3)
    return Grid((smooth * (reach / smooth).max() / 127).astype(np.float32), shift.astype(np.float32))


def _norm_in_steps(writer: _Writer, norm: NodeProto, grid: Grid, output: str) -> NodeProto:
    """The same normalisation with the grid folded into gain and bias; the first stays if a residual needs it."""
    gain = writer.values(norm.input[1])
    bias = writer.values(norm.input[2]) if len(norm.input) > 2 else np.zeros_like(gain)
    twin = NodeProto()
    twin.CopyFrom(norm)
    twin.name = f"{norm.name}_steps"
    del twin.input[1:], twin.output[:]
    twin.output.append(output)
    twin.input.append(writer.constant(norm.input[1], gain / grid.step))
    twin.input.append(writer.constant(output, (bias - grid.shift) / grid.step))
    return twin


def _static_group(writer: _Writer, steps: str, grid: Grid, group: list[Linear]) -> list[NodeProto]:
    """Products of one activation that is already written in steps of its grid."""
    quantised = f"{steps}_uint8"
    one, zero = writer.scalar(np.float32(1)), writer.scalar(np.uint8(MIDDLE))
    made = [helper.make_node("QuantizeLinear", [steps, one, zero], [quantised])]
    for linear in group:
        values, scale = quantize_weight(linear.weight * grid.step[:, None], writer.scheme.bounded)
        bias = linear.bias + grid.shift @ linear.weight  # the shift meets the exact weights, not the rounded ones
        made += _product(writer, quantised, values, scale, MIDDLE, linear.output, bias)
    return made


def _row_group(writer: _Writer, source: str, group: list[Linear], after_gelu: bool) -> list[NodeProto]:
    """One scale per row: of its largest magnitude, or after Gelu, whose minimum is known, of its largest value."""
    zero = GELU_ZERO_POINT if after_gelu else MIDDLE
    floor = GELU_MINIMUM / GELU_ZERO_POINT if after_gelu else 1e-12

    def part(name: str) -> str:
        return f"{source}_{name}"

    width = group[0].weight.shape[0]
    last, flat = writer.integers(-1), writer.integers(-1)
    magnitude = source if after_gelu else part("magnitude")
    made = [] if after_gelu else [helper.make_node("Abs", [source], [magnitude])]
    made += [
        helper.make_node("ReduceMax", [magnitude, last], [part("peak")], keepdims=1),
        helper.make_node("Mul", [part("peak"), writer.scalar(np.float32(1 / (255 - zero)))], [part("free")]),
        helper.make_node("Max", [part("free"), writer.scalar(np.float32(floor))], [part("step")]),
        helper.make_node("Reshape", [part("step"), flat], [part("step_flat")]),
        helper.make_node("Shape", [part("step_flat")], [part("count")]),
        helper.make_node("Expand", [writer.scalar(np.uint8(zero)), part("count")], [part("zero")]),
        helper.make_node("Reshape", [source, writer.integers(-1, width)], [part("rows")]),
        helper.make_node("QuantizeLinear", [part("rows"), part("step_flat"), part("zero")], [part("flat")], axis=0),
        helper.make_node("Shape", [source], [part("shape")]),
        helper.make_node("Reshape", [part("flat"), part("shape")], [part("uint8")]),
    ]
    for linear in group:
        values, scale = quantize_weight(linear.weight, writer.scheme.bounded)
        output = linear.output
        made += [
            *_product(writer, part("uint8"), values, scale, zero, f"{output}_steps", None),
            helper.make_node("Mul", [f"{output}_steps", part("step")], [f"{output}_scaled"]),
            helper.make_node("Add", [f"{output}_scaled", writer.constant(output, linear.bias)], [output]),
        ]
    return made


def _product(
    writer: _Writer,
    quantised: str,
    values: NDArray[np.int8],
    scale: FloatArray,
    zero: int,
    output: str,
    bias: FloatArray | None,
) -> list[NodeProto]:
    """`(quantised - zero) @ values * scale + bias`."""
    weight, scales, offset = (
        writer.constant(output, values),
        writer.constant(output, scale),
        writer.scalar(np.uint8(zero)),
    )
    if writer.scheme.fused:
        inputs = [quantised, weight, writer.scalar(np.float32(1)), scales, offset]
        inputs += [] if bias is None else ["", writer.constant(output, bias)]
        return [helper.make_node("MatMulIntegerToFloat", inputs, [output], domain=CONTRIB)]
    scaled = output if bias is None else f"{output}_unbiased"
    made = [
        helper.make_node("MatMulInteger", [quantised, weight, offset], [f"{output}_int32"]),
        helper.make_node("Cast", [f"{output}_int32"], [f"{output}_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}_float", scales], [scaled]),
    ]
    if bias is not None:
        made.append(helper.make_node("Add", [scaled, writer.constant(output, bias)], [output]))
    return made


def _consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    consumers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    return consumers


def _ensure_domain(model: ModelProto) -> None:
    if all(entry.domain != CONTRIB for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))


def _sorted_and_pruned(model: ModelProto) -> ModelProto:
    """Topological order, and nothing that no output needs."""
    graph = model.graph
    producer = {name: node for node in graph.node for name in node.output if name}
    order: list[NodeProto] = []
    done: set[int] = set()
    pending = [(producer[value.name], False) for value in reversed(graph.output)]
    while pending:
        node, ready = pending.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            order.append(node)
            continue
        pending.append((node, True))
        pending += [
            (producer[name], False) for name in node.input if name in producer and id(producer[name]) not in done
        ]
    used = {name for node in order for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in order]
    tensors = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(copies)
    graph.initializer.extend(tensors)
    return model

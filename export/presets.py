"""Optimum's int8 presets: `AutoQuantizationConfig` of a processor, as `optimum-cli onnxruntime quantize` applies it.

ONNX Runtime's dynamic quantisation takes one activation scale over a whole batch, so what a row is answered may depend
on the other rows. Export measures that as for every precision, and refuses a bundle of which it is so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import ModelProto, TensorProto
from onnx.helper import make_tensor_value_info
from onnxruntime.quantization.onnx_model import ONNXModel

from rekd_edge.export.nodes import needed_for
from rekd_edge.export.parity import Feed
from rekd_edge.export.quantization import Quantized
from rekd_edge.modeling import RationaleModel

__all__ = ["arm64", "avx2", "avx512_vnni"]


def arm64(graph: ModelProto, calibration: Sequence[Feed], model: RationaleModel) -> Quantized:
    """Optimum's preset for ARM64."""
    return _quantised("arm64", graph, model)


def avx2(graph: ModelProto, calibration: Sequence[Feed], model: RationaleModel) -> Quantized:
    """Optimum's preset for x86 processors with AVX2."""
    return _quantised("avx2", graph, model)


def avx512_vnni(graph: ModelProto, calibration: Sequence[Feed], model: RationaleModel) -> Quantized:
    """Optimum's preset for x86 processors with AVX512-VNNI."""
    return _quantised("avx512_vnni", graph, model)


def _quantised(preset: str, graph: ModelProto, model: RationaleModel) -> Quantized:
    """Apply a preset; a generator that reads the predictor's embeddings stays in float, as in `int8`."""
    from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer

    ONNXModel(graph).replace_gemm_with_matmul()
    for i, node in enumerate(graph.graph.node):
        node.name = f"{i}/{node.op_type}"
        if node.op_type == "MatMul":  # the quantiser asks, and inference stops at contributed operators
            graph.graph.value_info.append(make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))

    in_float = ["selection_margin"] if model.generator_in_float else []
    excluded = [graph.graph.node[i].name for i in sorted(needed_for(graph, in_float))]

    configuration = getattr(AutoQuantizationConfig, preset)(is_static=False, nodes_to_exclude=excluded)
    with TemporaryDirectory() as folder:
        source = Path(folder, "model.onnx")
        onnx.save(graph, source)
        ORTQuantizer(source, model.predictor.encoder.config).quantize(configuration, folder)
        quantised = onnx.load(Path(folder, "model_quantized.onnx"))

    facts = {
        "scheme": f"Optimum's {preset} preset: int8 weights, one activation scale for a whole batch",
        "generator": "float" if in_float else "int8",
    }
    return Quantized(quantised, facts)

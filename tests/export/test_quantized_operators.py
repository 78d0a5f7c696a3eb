"""Each operator in int8: the arithmetic of its integers, against numpy and against its float form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from rekd_edge.export.int8 import quantize_weight, static_grid
from rekd_edge.export.quantization import CONTRIB, find_linears, quantize_products
from rekd_edge.export.tables import quantize_stored, quantize_tables
from rekd_edge.modeling.rounding import quantize_halves, quantize_rows, restore_halves


def session(model: ModelProto, threads: int = 1, exact: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if exact:  # no 16-bit sums on x86, at the price of speed
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def tiny(nodes: list[Any], constants: dict[str, np.ndarray], inputs: dict[str, list[Any]]) -> ModelProto:
    """A graph from x (float) or ids (int64) to y."""
    kinds = {"x": TensorProto.FLOAT, "ids": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_a_product_is_what_its_integers_say(calibrated: bool, biased: bool) -> None:
    """LayerNormalization, then one product: the same arithmetic in numpy."""
    random = np.random.default_rng(0)
    gain, shift = random.uniform(0.1, 3, 64).astype(np.float32), random.normal(size=64).astype(np.float32)
    weight, bias = random.normal(size=(64, 80)).astype(np.float32), random.normal(size=80).astype(np.float32)
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["normal"]),
        helper.make_node("MatMul", ["normal", "weight"], ["product" if biased else "y"]),
    ]
    constants = {"gain": gain, "shift": shift, "weight": weight}
    if biased:
        nodes.append(helper.make_node("Add", ["bias", "product"], ["y"]))
        constants["bias"] = bias
    model = tiny(nodes, constants, {"x": ["batch", "sequence", 64]})
    x = random.normal(size=(3, 5, 64)).astype(np.float32)
    quantised = quantize_products(model, [{"x": x}] if calibrated else [])
    assert "MatMul" not in {node.op_type for node in quantised.graph.node}
    (found,) = session(quantised).run(["y"], {"x": x})

    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain + shift
    middle, step = 0.0, np.abs(normal).max(-1, keepdims=True) / 127
    if calibrated:
        grid = static_grid(normal.min(axis=(0, 1)), normal.max(axis=(0, 1)), weight)
        middle, step = grid.shift, grid.step
        steps = ((normal - middle) / step).reshape(-1, 64)
        values, scale = quantize_weight(weight * step[:, None], steps.T.astype(np.float64) @ steps)
        integers = np.clip(np.round((normal - middle) / step), -128, 127) @ values * scale
    else:
        values, scale = quantize_weight(weight)
        integers = np.round(normal / step) @ values * scale * step
    expected = integers + np.broadcast_to(middle, 64) @ weight + (bias if biased else 0)
    # a value on the border between two integers may fall on either side
    assert np.mean(np.abs(found - expected) > 1e-3) < 0.05
    assert np.abs(found - expected).max() < 0.2
    assert np.abs(found - normal @ weight - (bias if biased else 0)).max() < 0.03 * np.abs(found).max()


def test_a_scale_of_its_own_serves_every_row() -> None:
    """Rows a thousand times apart in size keep their relative precision."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(64, 64)).astype(np.float32)
    model = tiny([helper.make_node("MatMul", ["x", "weight"], ["y"])], {"weight": weight}, {"x": ["batch", 64]})
    x = (random.normal(size=(4, 64)) * [[1e-3], [1], [1e3], [0]]).astype(np.float32)
    (found,) = session(quantize_products(model, [])).run(["y"], {"x": x})
    relative = np.abs(found - x @ weight).max(axis=1)[:3] / np.abs(x @ weight).max(axis=1)[:3]
    assert (relative < 0.03).all()
    assert (found[3] == 0).all()


def test_values_below_0_survive_after_gelu() -> None:
    """Also in a row without a large value, whose own scale would leave them no room."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(64, 64)).astype(np.float32)
    gelu = helper.make_node("FastGelu", ["x"], ["active"], domain=CONTRIB)
    model = tiny(
        [gelu, helper.make_node("MatMul", ["active", "weight"], ["y"])], {"weight": weight}, {"x": ["batch", 64]}
    )
    model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    x = random.normal(size=(3, 64)).astype(np.float32)
    x[1], x[2] = -0.75, np.minimum(x[2], 0)
    (exact,), (found,) = (session(graph).run(["y"], {"x": x}) for graph in (model, quantize_products(model, [])))
    assert (np.abs(found - exact).max(axis=1) < 0.05 * np.abs(exact).max(axis=1)).all()


def test_embeddings_are_int8_row_by_row() -> None:
    random = np.random.default_rng(0)
    table = (random.normal(size=(100, 64)) * random.uniform(0.01, 9, (100, 1))).astype(np.float32)
    model = tiny(
        [helper.make_node("Gather", ["table", "ids"], ["y"])], {"table": table}, {"ids": ["batch", "sequence"]}
    )
    quantised = quantize_tables(model)
    ids = random.integers(0, 100, (3, 7))
    (found,) = session(quantised).run(["y"], {"ids": ids})
    assert (np.abs(found - table[ids]) <= 0.5001 * np.abs(table[ids]).max(-1, keepdims=True) / 127).all()
    assert len(quantised.SerializeToString()) < 0.4 * len(model.SerializeToString())


@pytest.mark.parametrize("rows", [100, 3000])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_rounded_table_is_read_bit_for_bit(rows: int, bits: int) -> None:
    """A large table row by row, a small one restored as a whole."""
    random = np.random.default_rng(0)
    exact = (random.normal(size=(rows, 64)) * random.uniform(0.01, 9, (rows, 1))).astype(np.float32)
    values, scale = quantize_rows(exact)
    table = values * scale if bits == 8 else restore_halves(*quantize_halves(exact))
    model = tiny(
        [helper.make_node("Gather", ["table", "ids"], ["y"])], {"table": table}, {"ids": ["batch", "sequence"]}
    )
    quantised = quantize_tables(model)
    ids = random.integers(0, rows, (3, 7))
    (found,) = session(quantised).run(["y"], {"ids": ids})
    np.testing.assert_array_equal(found, table[ids])

    scales = 1 if bits == 8 else 2
    stored = rows * (64 * bits // 8 + 4 * scales)
    assert stored < len(quantised.SerializeToString()) < stored + 2000


def test_a_table_that_was_not_rounded_to_4_bits_keeps_8() -> None:
    table = np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32)
    model = tiny([helper.make_node("Gather", ["table", "ids"], ["y"])], {"table": table}, {"ids": ["batch"]})
    integers = next(each for each in quantize_tables(model).graph.initializer if each.data_type == TensorProto.INT8)
    assert list(integers.dims) == [100, 64]


@pytest.mark.parametrize("width", [64, 24])
def test_an_lstm_has_int8_weights_row_by_row_and_answers_each_text_by_itself(width: int) -> None:
    """A text alone, in a batch and on two threads: bit by bit. Weights of fewer than 4,096 numbers stay as they are."""
    random = np.random.default_rng(0)
    shapes = {"w": (2, 2 * width, width), "r": (2, 2 * width, width // 2), "b": (2, 4 * width)}
    exact = {name: random.uniform(-0.3, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}

    def graph(weights: dict[str, np.ndarray], lengths: list[int]) -> ModelProto:
        inputs = ["x", "w", "r", "b", "lengths"]
        node = helper.make_node("LSTM", inputs, ["y"], hidden_size=width // 2, direction="bidirectional")
        constants = {**weights, "lengths": np.array(lengths, np.int32)}
        return tiny([node], constants, {"x": ["positions", "batch", width]})

    rounded = dict(exact)
    if width == 64:
        for name in ("w", "r"):
            values, scale = quantize_rows(exact[name].reshape(4 * width, -1))
            rounded[name] = (values * scale).reshape(exact[name].shape)
    lengths, x = [7, 4, 1], random.normal(size=(7, 3, width)).astype(np.float32)
    model = quantize_stored(graph(exact, lengths))
    assert (TensorProto.INT8 in {tensor.data_type for tensor in model.graph.initializer}) == (width == 64)
    (found,) = session(model).run(["y"], {"x": x})
    np.testing.assert_allclose(found, session(graph(rounded, lengths)).run(["y"], {"x": x})[0], atol=1e-6)
    np.testing.assert_array_equal(session(model, threads=2).run(["y"], {"x": x})[0], found)
    for row, length in enumerate(lengths):
        alone = session(quantize_stored(graph(exact, [length])))
        (single,) = alone.run(["y"], {"x": x[:length, row : row + 1]})
        np.testing.assert_array_equal(single[:, :, 0], found[:length, :, row])


def test_a_table_that_is_added_whole_is_int8_row_by_row() -> None:
    random = np.random.default_rng(0)
    table = (random.normal(size=(80, 64)) * random.uniform(0.01, 9, (80, 1))).astype(np.float32)
    model = tiny([helper.make_node("Add", ["x", "table"], ["y"])], {"table": table}, {"x": ["batch", 80, 64]})
    quantised = quantize_stored(model)
    (found,) = session(quantised).run(["y"], {"x": np.zeros((1, 80, 64), np.float32)})
    assert (np.abs(found[0] - table) <= 0.5001 * np.abs(table).max(-1, keepdims=True) / 127).all()
    assert len(quantised.SerializeToString()) < 0.4 * len(model.SerializeToString())


def test_what_is_no_table_of_rows_stays_float() -> None:
    table = np.ones((64, 64), np.float32)
    gather = helper.make_node("Gather", ["table", "ids"], ["y"], axis=1)
    model = tiny([gather], {"table": table}, {"ids": ["batch"]})
    assert quantize_tables(model).graph == model.graph


def test_only_products_with_constant_weights_are_found() -> None:
    weight, bias = np.ones((64, 64), np.float32), np.ones(64, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["first"]),
        helper.make_node("MatMul", ["first", "weight"], ["second"]),  # its output is used twice: no bias to take in
        helper.make_node("Add", ["second", "bias"], ["third"]),
        helper.make_node("MatMul", ["second", "third"], ["attention"]),
        helper.make_node("MatMul", ["attention", "narrow"], ["y"]),
    ]
    constants = {"weight": weight, "bias": bias, "narrow": np.ones((64, 2), np.float32)}
    model = tiny(nodes, constants, {"x": [64, 64]})
    found = [(linear.input, linear.product, linear.output) for linear in find_linears(model)]
    assert found == [("x", "product", "first"), ("first", "second", "second")]

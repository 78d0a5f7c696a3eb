"""The band of near-ties: measured on the bundle's own graph, stated in the manifest and in the card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from rekd_edge.export.drift import disturbed, measure_near_ties

LOWEST = float(np.finfo(np.float32).min)


def graph(weights: list[float], step: float = 0.0) -> ModelProto:
    """`selection_margin` [1, 3] = x · weights, rounded to multiples of `step` where there is one."""
    nodes = [helper.make_node("Mul", ["x", "weights"], ["product"])]
    constants = {"weights": np.array([weights], np.float32)}
    if step:
        nodes += [
            helper.make_node("Div", ["product", "step"], ["steps"]),
            helper.make_node("Round", ["steps"], ["integers"]),
            helper.make_node("Mul", ["integers", "step"], ["selection_margin"]),
        ]
        constants["step"] = np.array(step, np.float32)
    else:
        nodes.append(helper.make_node("Identity", ["product"], ["selection_margin"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "selection_margin")]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def feeds(*rows: list[float]) -> list[dict[str, np.ndarray]]:
    return [{"x": np.array([row], np.float32)} for row in rows]


def test_a_disturbed_graph_differs_by_two_units_in_the_last_place() -> None:
    model = graph([1.0, -3.0, 0.0], step=0.5)
    changed = {tensor.name: numpy_helper.to_array(tensor) for tensor in disturbed(model, 0).graph.initializer}
    relative = np.abs(changed["weights"] - [[1.0, -3.0, 0.0]])[0, :2] / [1.0, 3.0]
    assert relative == pytest.approx(2.0**-22, rel=0.01)
    assert changed["weights"][0, 2] == 0.0
    assert changed["step"] == 0.5  # single numbers are part of the arithmetic


def test_rounding_that_tips_over_is_measured_as_a_step() -> None:
    rows = feeds([0.5, 4.0, 9.0], [2.5, LOWEST, 4.0], [-1.0, 0.9, 0.2])
    found = measure_near_ties(graph([1.0, 1.0, 1.0], step=1.0), rows, in_float=False)
    assert (found.measured, found.width) == (1.0, 1.0)
    assert (found.rows, found.features) == (3, 8)
    # 0.5 → 0 in the first row; -1, 0.9 → 1 and 0.2 → 0 in the last
    assert found.within == 4


def test_float_margins_have_the_band_of_float() -> None:
    found = measure_near_ties(graph([1.0, 1.0, 1.0]), feeds([30.0, 5e-6, -2.0]), in_float=True)
    assert found.width == 1e-5
    assert 30 * 2.0**-23 < found.measured < 30 * 2.0**-21
    assert found.within == 1
    assert found.to_dict()["share"] == 1 / 3


def test_a_fallback_between_two_equals_is_within_the_band() -> None:
    found = measure_near_ties(graph([1.0, 1.0, 1.0]), feeds([-3.0, -3.0, -9.0]), in_float=True)
    assert found.within == 2


def test_manifest_and_card_state_the_band(int8_bundle: Path, text_bundle: Path) -> None:
    for bundle, widest in ((int8_bundle, 0.2), (text_bundle, 1e-5)):
        stated = json.loads((bundle / "manifest.json").read_text())["near_ties"]
        assert 1e-5 <= stated["width"] <= widest
        assert stated["features"] > 100
        assert 0 <= stated["within"] < 0.1 * stated["features"]
        card = (bundle / "README.md").read_text()
        assert f"Features within {stated['width']:.1e} of a tie" in card
        assert f"| {stated['within']} of {stated['features']} |" in card

    final = onnx.load(int8_bundle / "model.onnx")
    assert any(tensor.data_type == TensorProto.INT8 for tensor in final.graph.initializer)

"""Every node bears the stage that needs it: on a graph sorted by hand, and on exported ones against onnx's own cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper
from onnx.utils import Extractor

from rekd_edge.export.nodes import name_nodes
from rekd_edge.modeling import RationaleModel
from rekd_edge.runtime.profiling import stage_shares

Graph = Callable[..., tuple[RationaleModel, Path]]


def nodes_by_hand() -> list[tuple[str, list[str], str, str]]:
    """(operator, inputs, output, stage): a pipeline in small, its stages as the docstring states them."""
    return [
        ("Gather", ["table", "input_ids"], "shared", "generator"),  # read by both towers
        ("MatMul", ["shared", "g"], "selection_margin", "generator"),
        ("Greater", ["selection_margin", "zero"], "rationale_mask", "gather"),
        ("TopK", ["rationale_mask", "k"], "order", "gather"),
        ("Add", ["shared", "positions"], "raised", "predictor"),  # what is gathered is the predictor's,
        ("Shape", ["raised"], "size", "gather"),  # also where an index asks for its size
        ("Expand", ["order", "size"], "index", "gather"),
        ("GatherElements", ["raised", "index"], "kept", "gather"),
        ("Not", ["rationale_mask"], "filler", "predictor"),
        ("MatMul", ["kept", "p"], "hidden", "predictor"),
        ("Add", ["hidden", "filler"], "logits", "predictor"),
    ]


def small_graph(rows: list[tuple[str, list[str], str, str]]) -> ModelProto:
    made = [helper.make_node(operator, inputs, [output]) for operator, inputs, output, _ in rows]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ("logits", "rationale_mask", "selection_margin")
    ]
    return helper.make_model(helper.make_graph(made, "small", [], outputs))


def stages(model: ModelProto) -> list[str]:
    return [node.name.partition("/")[0] for node in model.graph.node]


def test_stages_are_those_sorted_by_hand() -> None:
    rows = nodes_by_hand()
    model = small_graph(rows)
    name_nodes(model)
    assert stages(model) == [stage for *_, stage in rows]


def test_without_a_gather_all_after_the_margin_is_predictor() -> None:
    rows = [row for row in nodes_by_hand() if row[3] == "generator"]
    rows.append(("Greater", ["selection_margin", "zero"], "rationale_mask", "predictor"))
    rows.append(("Mul", ["shared", "rationale_mask"], "logits", "predictor"))
    model = small_graph(rows)
    name_nodes(model)
    assert stages(model) == [stage for *_, stage in rows]


def test_without_a_generator_all_is_predictor() -> None:
    model = small_graph(nodes_by_hand())
    name_nodes(model, selects=False)
    assert set(stages(model)) == {"predictor"}


@pytest.mark.parametrize("mask_mode", ["zero", "drop"])
@pytest.mark.parametrize("task", ["text", "image"])
def test_the_generator_is_what_onnx_cuts_out_for_the_margin(make_graph: Graph, task: str, mask_mode: str) -> None:
    model = onnx.load(make_graph(task, mask_mode, "re")[1])
    name_nodes(model)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    inputs = [value.name for value in model.graph.input]
    cut = Extractor(model).extract_model(inputs, ["selection_margin"])
    assert {name for name in names if name.startswith("generator/")} == {node.name for node in cut.graph.node}
    assert any(name.startswith("predictor/") for name in names)
    gather = {name.rpartition("/")[2] for name in names if name.startswith("gather/")}
    assert ({"GatherElements", "TopK"} <= gather) if mask_mode == "drop" else not gather


@pytest.mark.parametrize("task", ["text", "image"])
def test_a_bundle_records_shares_that_sum_to_one(int8_bundle: Path, digits_bundle: Path, task: str) -> None:
    bundle = int8_bundle if task == "text" else digits_bundle
    shares = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["time_shares"]
    assert list(shares) == ["generator", "gather", "predictor"]
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in shares.values())


def test_names_change_no_answer(make_graph: Graph, make_feeds: Callable, tmp_path: Path) -> None:
    path = make_graph("text", "drop", "re")[1]
    model = onnx.load(path)
    name_nodes(model)
    onnx.save(model, tmp_path / "named.onnx")
    before, after = (
        onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        for graph in (path, tmp_path / "named.onnx")
    )
    feeds = make_feeds("text", 4)
    for feed in feeds:
        for expected, found in zip(before.run(None, feed), after.run(None, feed), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert stage_shares(path, feeds, threads=1) is None  # the graph as it was traced tells no stage

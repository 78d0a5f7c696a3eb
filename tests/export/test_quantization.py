"""Int8 graphs stay close to fp32, answer each row by itself, and hold no large float matrix."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto

from rekd_edge.export.parity import Feed, agreement, graph_answers, invariance
from rekd_edge.export.quantization import CONTRIB, quantize
from rekd_edge.export.tables import SMALLEST
from rekd_edge.modeling import RationaleModel

Graph = Callable[..., tuple[RationaleModel, Path]]
Feeds = Callable[[str, int], list[Feed]]
NAMES = ["logits", "rationale_mask", "selection_margin"]


def session(model: ModelProto, threads: int = 1, exact: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if exact:  # no 16-bit sums on x86, at the price of speed
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def batch_of(feeds: list[Feed]) -> Feed:
    if "pixel_values" in feeds[0]:
        return {"pixel_values": np.concatenate([feed["pixel_values"] for feed in feeds])}
    width = max(feed["input_ids"].shape[1] for feed in feeds)
    return {
        name: np.concatenate([np.pad(feed[name], ((0, 0), (0, width - feed[name].shape[1]))) for feed in feeds])
        for name in ("input_ids", "attention_mask")
    }


@pytest.fixture(scope="module")
def make_int8(make_graph: Graph, make_feeds: Feeds) -> Callable[..., ModelProto]:
    """The int8 form of a graph with random weights."""
    made: dict[tuple[Any, ...], ModelProto] = {}

    def make(task: str, mask_mode: str, calibrated: bool, family: str = "") -> ModelProto:
        key = task, mask_mode, calibrated, family
        if key not in made:
            feeds = make_feeds(task, 20) if calibrated else []
            made[key] = quantize(onnx.load(make_graph(task, mask_mode, "re", family)[1]), feeds)
        return made[key]

    return make


NETS = [("text", "bilstm"), ("text", "cnn"), ("image", "resnet")]
ALL = [(*variant, "") for variant in product(("text", "image"), ("zero", "drop"), (True, False))]
ALL += [(task, "zero", *rest, family) for (task, family), *rest in product(NETS, (True, False))]


@pytest.mark.parametrize(("task", "mask_mode", "calibrated", "family"), ALL)
def test_int8_is_close_to_fp32(
    make_graph: Graph, make_int8: Callable[..., ModelProto], make_feeds: Feeds, task: str, mask_mode: str,
    calibrated: bool, family: str,
) -> None:  # fmt: skip
    exact = session(onnx.load(make_graph(task, mask_mode, "re", family)[1]))
    rounded = session(make_int8(task, mask_mode, calibrated, family))
    margins, errors, differences = [], [], []
    for feed in make_feeds(task, 20):
        margin, mask = exact.run(NAMES[:0:-1], feed)
        other_margin, other_mask = rounded.run(NAMES[:0:-1], feed)
        feature = margin > np.finfo(np.float32).min
        np.testing.assert_array_equal(other_margin[~feature], margin[~feature])
        margins.append(margin[feature])
        errors.append((other_margin - margin)[feature])
        differences.append((mask != other_mask)[feature])
    assert np.abs(np.concatenate(errors)).mean() < 0.06 * np.concatenate(margins).std()
    assert np.concatenate(differences).mean() < 0.03  # random margins crowd around the border


@pytest.mark.parametrize(("task", "mask_mode", "calibrated", "family"), ALL)
def test_a_row_alone_equals_the_row_in_a_batch_bit_by_bit(
    make_int8: Callable[..., ModelProto], make_feeds: Feeds, task: str, mask_mode: str, calibrated: bool,
    family: str,
) -> None:  # fmt: skip
    model = make_int8(task, mask_mode, calibrated, family)
    feeds = make_feeds(task, 9)
    together = session(model, threads=2).run(NAMES, batch_of(feeds))
    alone = session(model)
    for row, feed in enumerate(feeds):
        for whole, single in zip(together, alone.run(NAMES, feed), strict=True):
            np.testing.assert_array_equal(whole[row, : single.shape[1]], single[0])


@pytest.mark.parametrize("task", ["text", "image"])
def test_the_16_bit_sums_of_x86_lose_nothing(
    make_int8: Callable[..., ModelProto], make_feeds: Feeds, task: str
) -> None:
    model = make_int8(task, "zero", True)
    fast, exact = session(model), session(model, exact=True)
    for feed in make_feeds(task, 6):
        for ours, theirs in zip(fast.run(NAMES, feed), exact.run(NAMES, feed), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("task", ["text", "image"])
def test_it_uses_the_fused_operators(make_int8: Callable[..., ModelProto], task: str) -> None:
    model = make_int8(task, "drop", True)
    assert {"MatMulIntegerToFloat", "FastGelu"} <= {node.op_type for node in model.graph.node if node.domain == CONTRIB}
    assert {entry.domain for entry in model.opset_import} == {"", CONTRIB}
    onnx.checker.check_model(model)


@pytest.mark.parametrize(
    ("task", "mask_mode", "family"), [("text", "drop", ""), *((task, "zero", family) for task, family in NETS)]
)
def test_every_large_matrix_is_int8(
    make_int8: Callable[..., ModelProto], make_graph: Graph, task: str, mask_mode: str, family: str
) -> None:
    model = make_int8(task, mask_mode, True, family)
    large = [tensor for tensor in model.graph.initializer if np.prod(tensor.dims) >= SMALLEST]
    assert large
    assert {tensor.data_type for tensor in large} == {TensorProto.INT8}
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    original = make_graph(task, mask_mode, "re", family)[1].stat().st_size
    assert len(model.SerializeToString()) < original / 2


def test_quantising_leaves_its_input_as_it_was(make_graph: Graph, make_feeds: Feeds) -> None:
    model = onnx.load(make_graph("text", "zero", "re")[1])
    before = model.SerializeToString()
    quantize(model, make_feeds("text", 3))
    assert model.SerializeToString() == before


def test_int8_agrees_with_fp32_on_a_trained_run(
    trained_run: Path, make_planted_feeds: Callable[[Path], list[Feed]], tmp_path: Path
) -> None:
    from rekd_edge.export.graph import export_graph

    path, int8 = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    export_graph(RationaleModel.from_pretrained(trained_run), path)
    feeds = make_planted_feeds(trained_run)
    onnx.save(quantize(onnx.load(path), feeds[:100]), int8)
    found = agreement(graph_answers(path, feeds), graph_answers(int8, feeds))
    assert found.mask_agreement >= 0.995
    assert found.label_agreement >= 0.99
    unchanging = invariance(int8, feeds, 0)
    assert unchanging["mask_differences"] == unchanging["near_ties"] == unchanging["label_differences"] == 0

"""The graph says what the run says: every mode, batch and length, asked with plain ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from rekd_edge.export.graph import OPSET, export_graph, graph_io
from rekd_edge.export.quantization import find_linears
from rekd_edge.modeling import RationaleModel

Graph = Callable[..., tuple[RationaleModel, Path]]
Rule = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.bool_]]
LOWEST = np.finfo(np.float32).min
CLS, SEP, PAD = 2, 3, 0
NETS = [("text", "zero", "re", "bilstm"), ("text", "zero", "re", "cnn"), ("image", "zero", "re", "resnet")]
MEAN = [*product(("text", "image"), ("zero-mean", "drop-mean"), ("re",)), ("text", "drop-mean", "cls")]
ALL = [*product(("text", "image"), ("zero", "drop"), ("re", "cls")), *MEAN, *NETS]
QUICK = [*product(("text", "image"), ("zero", "drop"), ("re",)), ("text", "drop", "cls"), MEAN[1], NETS[0]]
VARIANTS = [pytest.param(each, marks=[] if each in QUICK else [pytest.mark.slow], id="-".join(each)) for each in ALL]
DTYPES = {"tensor(int64)": "int64", "tensor(float)": "float32", "tensor(bool)": "bool"}


def texts(lengths: list[int], width: int) -> dict[str, NDArray[np.int64]]:
    """Rows of the given lengths in tokens, [CLS] and [SEP] included; 0 is padding alone."""
    random = np.random.default_rng(sum(lengths) + width)
    ids = np.full((len(lengths), width), PAD)
    for row, length in zip(ids, lengths, strict=True):
        if length:
            row[:length] = [CLS, *random.integers(4, 80, length - 2), SEP]
    return {"input_ids": ids, "attention_mask": (ids != PAD).astype(np.int64)}


def images(count: int) -> dict[str, NDArray[np.float32]]:
    return {"pixel_values": np.random.default_rng(count).normal(size=(count, 3, 8, 8)).astype(np.float32)}


def batches(task: str) -> list[dict[str, NDArray]]:
    if task == "image":
        return [images(count) for count in range(1, 6)]
    random = np.random.default_rng(0)
    drawn = [random.integers(2, 33, count).tolist() for count in range(1, 6)]
    one_each = [[length] for length in range(2, 33)]
    edges = [[0], [2], [0, 0], [2, 2], [0, 2, 3], [32, 0, 2, 17, 3]]
    return [texts(lengths, max(*lengths, 1)) for lengths in [*drawn, *one_each, *edges]] + [texts([3, 9], 32)]


def is_feature(feed: dict[str, NDArray]) -> NDArray[np.bool_]:
    if "pixel_values" in feed:
        return np.ones((len(feed["pixel_values"]), 64), bool)
    return (feed["attention_mask"] == 1) & (feed["input_ids"] != CLS) & (feed["input_ids"] != SEP)


@pytest.mark.parametrize("variant", VARIANTS)
def test_graph_answers_as_torch_does(make_graph: Graph, variant: tuple[str, ...]) -> None:
    model, path = make_graph(*variant)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for feed in batches(variant[0]):
        with torch.no_grad():
            expected = model(**{name: torch.from_numpy(value) for name, value in feed.items()})
        logits, mask, margin = session.run(["logits", "rationale_mask", "selection_margin"], feed)
        np.testing.assert_array_equal(mask, expected.mask.numpy())
        np.testing.assert_allclose(logits, expected.logits.numpy(), atol=1e-4, rtol=0)
        feature = is_feature(feed)
        np.testing.assert_allclose(margin[feature], expected.margin.numpy()[feature], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_masks_and_margins_keep_the_numeric_rules(
    make_graph: Graph, select_by_rule: Rule, variant: tuple[str, ...]
) -> None:
    _, path = make_graph(*variant)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    fallbacks = 0
    for feed in batches(variant[0]):
        logits, mask, margin = session.run(["logits", "rationale_mask", "selection_margin"], feed)
        feature = is_feature(feed)
        assert np.isfinite(logits).all()
        assert (margin[~feature] == LOWEST).all()
        assert (margin[feature] > LOWEST).all()
        np.testing.assert_array_equal(mask, feature if variant[2] == "cls" else select_by_rule(margin, feature))
        fallbacks += int((feature.any(axis=1) & ~(margin > 0).any(axis=1)).sum())
    if variant[2] == "re" and variant[0] == "text":
        assert fallbacks  # else the rule was seen in part only


@pytest.mark.parametrize("task", ["text", "image"])
def test_names_types_and_axes_are_those_of_the_contract(make_graph: Graph, task: str) -> None:
    _, path = make_graph(task, "drop", "re")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {value.name: (value.type, value.shape) for value in session.get_inputs()}
    outputs = {value.name: (value.type, value.shape) for value in session.get_outputs()}
    ids = ("tensor(int64)", ["batch", "sequence"])
    assert inputs == (
        {"input_ids": ids, "attention_mask": ids}
        if task == "text"
        else {"pixel_values": ("tensor(float)", ["batch", 3, 8, 8])}
    )
    assert list(outputs) == ["logits", "rationale_mask", "selection_margin"]
    assert outputs["logits"] == ("tensor(float)", ["batch", 2 if task == "text" else 10])
    assert outputs["rationale_mask"][0] == "tensor(bool)"
    assert outputs["selection_margin"][0] == "tensor(float)"
    for name in ("rationale_mask", "selection_margin"):
        assert outputs[name][1][0] == "batch"
        assert len(outputs[name][1]) == 2
    if task == "text":
        assert outputs["rationale_mask"][1] == outputs["selection_margin"][1] == ["batch", "sequence"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_graph_is_valid_at_the_stated_opset(make_graph: Graph, variant: tuple[str, ...]) -> None:
    model = onnx.load(make_graph(*variant)[1])
    onnx.checker.check_model(model)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    assert versions[""] == OPSET
    assert {node.domain for node in model.graph.node} <= {"", "com.microsoft"}


@pytest.mark.parametrize("task", ["text", "image"])
def test_listed_io_is_that_of_the_graph(make_graph: Graph, task: str) -> None:
    model, path = make_graph(task, "zero", "re")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    listed = graph_io(model)
    for side, values in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        assert [(io["name"], io["dtype"]) for io in listed[side]] == [(v.name, DTYPES[v.type]) for v in values]


def test_products_are_named_after_their_modules(make_graph: Graph) -> None:
    linears = find_linears(onnx.load(make_graph("text", "drop", "re")[1]))
    modules = [linear.name.partition("/")[0] for linear in linears]
    assert len(modules) == 2 * 6 + 1
    for tower in ("generator", "predictor"):
        assert f"model.{tower}.encoder.backbone.encoder.layer.0.attention.self.query" in modules
    assert "model.generator.head.0" in modules


@pytest.mark.parametrize("how", ["apart", "shared", "equal"])
def test_one_table_of_word_pieces_where_both_towers_read_the_same(
    make_run: Callable[..., Path], how: str, tmp_path: Path
) -> None:
    model = RationaleModel.from_pretrained(make_run("text", "drop", "re"))
    assert model.generator is not None
    ours, theirs = model.generator.encoder, model.predictor.encoder
    if how == "shared":
        ours.share_embedding(theirs)
    elif how == "equal":  # as both start from one backbone and are frozen
        ours.embedding.load_state_dict(theirs.embedding.state_dict())
    export_graph(model, tmp_path / "model.onnx")
    shape = list(theirs.embedding.weight.shape)
    tables = [tensor for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer if list(tensor.dims) == shape]
    assert len(tables) == (2 if how == "apart" else 1)


@pytest.mark.slow
def test_graph_selects_words_whole_and_within_limits(
    make_run: Callable[..., Path], select_by_rule: Rule, tmp_path: Path
) -> None:
    whole = RationaleModel.from_pretrained(make_run("text", "drop", "re"))
    config = replace(whole.config, select_words=True, min_selected=2, max_selected=6)
    model = RationaleModel(config, whole.predictor.encoder, whole.generator.encoder)
    model.load_state_dict({**whole.state_dict(), "starts_word": torch.arange(len(model.starts_word)) % 3 != 0})
    export_graph(model.eval(), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    limited = 0
    for feed in batches("text"):
        logits, mask, margin = session.run(["logits", "rationale_mask", "selection_margin"], feed)
        with torch.no_grad():
            expected = model(**{name: torch.from_numpy(values) for name, values in feed.items()})
        assert np.array_equal(mask, expected.mask.numpy())
        np.testing.assert_allclose(logits, expected.logits.numpy(), atol=1e-4)
        joined = (feed["input_ids"] % 3 == 0)[:, 1:] & is_feature(feed)[:, 1:] & is_feature(feed)[:, :-1]
        assert np.array_equal(mask[:, 1:][joined], mask[:, :-1][joined])
        assert (margin[:, 1:][joined] == margin[:, :-1][joined]).all()
        counts = is_feature(feed).sum(axis=1)
        assert (mask.sum(axis=1) >= np.minimum(counts, 2)).all()
        limited += (mask != select_by_rule(margin, is_feature(feed))).any(axis=1).sum()
    assert limited > 3

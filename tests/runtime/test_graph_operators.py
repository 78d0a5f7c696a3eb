"""A graph that could run without end or read other files is refused before ONNX Runtime sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rekd_edge.errors import InputError
from rekd_edge.runtime.graph import check_operators
from rekd_edge.runtime.rationalizer import Rationalizer

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def tensor(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def endless_loop(model: Any) -> None:
    """`while True`, whose result nobody needs."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["on_still"])],
        "body",
        [tensor("i", TensorProto.INT64, []), tensor("on", TensorProto.BOOL, [])],
        [tensor("on_still", TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("Loop", ["", "yes"], [], body=body))


def branch(model: Any) -> None:
    both = helper.make_graph([helper.make_node("Identity", ["zero"], ["chosen"])], "b", [], [tensor("chosen", 1, [])])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["either"], then_branch=both, else_branch=both))


def subgraph_of_another_operator(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("decoder", helper.make_graph([], "inner", [], [])))


def list_of_subgraphs(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("bodies", [helper.make_graph([], "inner", [], [])]))


def doubling_functions(model: Any) -> None:
    """Forty functions, each of which calls the one before twice: a trillion nodes once they are inlined."""
    for depth in range(1, 40):
        calls = [helper.make_node(f"f{depth - 1}", [x], [y], domain="bomb") for x, y in (("x", "y"), ("y", "z"))]
        model.functions.append(helper.make_function("bomb", f"f{depth}", ["x"], ["z"], calls, []))


def external_initializer(model: Any) -> None:
    weight = model.graph.initializer.add(name="outside", data_type=TensorProto.FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret")


def external_attribute(model: Any) -> None:
    outside = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[1])
    outside.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside))


def external_list(model: Any) -> None:
    outside = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[1])
    outside.external_data.add(key="location", value="/etc/passwd")
    model.graph.node[0].attribute.append(helper.make_attribute("tables", [outside]))


def external_location_alone(model: Any) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def sparse_initializer(model: Any) -> None:
    values, indices = numpy_helper.from_array(np.ones(1, np.float32), "s"), numpy_helper.from_array(np.zeros(1, int))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))


def training_graph(model: Any) -> None:
    model.training_info.add().algorithm.CopyFrom(helper.make_graph([], "step", [], []))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (endless_loop, r"control flow \((Loop|a subgraph)\)"),
        (branch, r"control flow \((If|a subgraph)\)"),
        (subgraph_of_another_operator, "a subgraph"),
        (list_of_subgraphs, "a subgraph"),
        (doubling_functions, "defines functions"),
        (external_initializer, "weights in another file"),
        (external_attribute, "weights in another file"),
        (external_list, "weights in another file"),
        (external_location_alone, "weights in another file"),
        (sparse_initializer, "sparse weights"),
        (training_graph, "for training"),
    ],
)
def test_such_a_graph_is_refused(
    text_bundle: Path, change_graph: Callable[..., Path], change: Callable[[Any], None], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        Rationalizer.load(change_graph(text_bundle, change), verify=False)


def test_a_graph_in_two_pieces_is_seen_whole(text_bundle: Path) -> None:
    """Protobuf merges a field that stands twice; the Loop comes in the second."""
    model = onnx.load(text_bundle / "model.onnx")
    extra = onnx.ModelProto()
    extra.graph.node.add(op_type="Loop")
    raw = model.SerializeToString() + extra.SerializeToString()
    assert onnx.load_model_from_string(raw).graph.node[-1].op_type == "Loop"
    with pytest.raises(ValueError, match="control flow"):
        check_operators(raw)


def test_a_graph_of_too_many_nodes_is_refused() -> None:
    model = onnx.ModelProto()
    for _ in range(100_001):
        model.graph.node.add()
    with pytest.raises(ValueError, match="more than 100000 nodes"):
        check_operators(model.SerializeToString())


def has_what_is_refused(model: Any) -> bool:
    """The same rule, on what protobuf's own parser made of the bytes."""

    def external(value: Any) -> bool:
        return bool(value.external_data) or value.data_location != TensorProto.DEFAULT

    graph = model.graph
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    tensors: Iterator[Any] = iter(
        [*graph.initializer, *(a.t for a in attributes), *(t for a in attributes for t in a.tensors)]
    )
    return (
        bool(model.functions or model.training_info or graph.sparse_initializer or not graph.node)
        or any(node.op_type in ("If", "Loop", "Scan", "SequenceMap") for node in graph.node)
        or any(a.HasField("g") or a.graphs or a.HasField("sparse_tensor") or a.sparse_tensors for a in attributes)
        or any(map(external, tensors))
    )


@pytest.fixture(scope="module")
def graphs(pristine_text_bundle: Path) -> list[bytes]:
    """One graph as it should be, and all that must be refused."""
    plain = (pristine_text_bundle / "model.onnx").read_bytes()
    changes = [endless_loop, branch, list_of_subgraphs, external_initializer, external_attribute, sparse_initializer]
    made = [plain]
    for change in [*changes, training_graph, doubling_functions]:
        model = onnx.load_model_from_string(plain)
        change(model)
        made.append(model.SerializeToString())
    return made


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_bytes_pass_only_where_protobuf_sees_nothing_to_refuse(
    graphs: list[bytes], data: st.DataObject
) -> None:
    raw = bytearray(data.draw(st.sampled_from(graphs)))
    for _ in range(data.draw(st.integers(0, 6))):
        place = data.draw(st.integers(0, len(raw)))
        raw[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    assert_agrees_with_protobuf(bytes(raw))


@given(st.binary(max_size=60))
@example(b"\x3a\x04\x0a\x02\x22\x00")  # a graph of one node
@example(b"\x3b\x0a\x00\x3c")  # the graph as a group
@example(b"\xba\x80\x80\x80\x00\x02\x0a\x00")  # the tag of the graph in five bytes
def test_any_bytes_are_refused_or_harmless(raw: bytes) -> None:
    assert_agrees_with_protobuf(raw)


def assert_agrees_with_protobuf(raw: bytes) -> None:
    from google.protobuf.message import DecodeError

    try:
        check_operators(raw)
    except ValueError:
        return
    try:
        model = onnx.load_model_from_string(raw)
    except DecodeError:
        return  # ONNX Runtime will not take it either
    assert not has_what_is_refused(model)

"""A graph keeps to the contract and its manifest, and what ONNX Runtime cannot run is one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rekd_edge.errors import InputError
from rekd_edge.runtime.bundle import write_manifest
from rekd_edge.runtime.graph import MAX_LENGTH_KEY
from rekd_edge.runtime.rationalizer import Rationalizer

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def tensor(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def renamed(model: Any) -> None:
    model.graph.input[1].name = "token_type_ids"
    for node in model.graph.node:
        node.input[:] = ["token_type_ids" if name == "attention_mask" else name for name in node.input]


def float_mask(model: Any) -> None:
    model.graph.node.append(helper.make_node("Cast", ["rationale_mask"], ["as_float"], to=TensorProto.FLOAT))
    swap_output(model, "rationale_mask", "as_float", TensorProto.FLOAT, ["batch", "features"])


def double_margin(model: Any) -> None:
    model.graph.node.append(helper.make_node("Cast", ["selection_margin"], ["as_double"], to=TensorProto.DOUBLE))
    swap_output(model, "selection_margin", "as_double", TensorProto.DOUBLE, ["batch", "features"])


def flat_mask(model: Any) -> None:
    model.graph.node.append(helper.make_node("Flatten", ["rationale_mask"], ["flat"], axis=0))
    model.graph.node.append(helper.make_node("Squeeze", ["flat"], ["flatter"]))
    swap_output(model, "rationale_mask", "flatter", TensorProto.BOOL, ["features"])


def fixed_sequence(model: Any) -> None:
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[1].dim_value = 7


def shorter(model: Any) -> None:
    helper.set_model_props(model, {MAX_LENGTH_KEY: "8"})


def with_sixteen_positions(model: Any) -> None:
    """As an encoder with a table of position embeddings: a row of a seventeenth token is none."""
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(16, np.float32), "table"))
    for node in model.graph.node:
        node.input[:] = ["placed" if name == "margin" else name for name in node.input]
    nodes = [
        helper.make_node("Shape", ["margin"], ["margin_shape"]),
        helper.make_node("Gather", ["margin_shape", "one"], ["width"]),
        helper.make_node("Range", ["zero_long", "width", "one"], ["places"]),
        helper.make_node("Gather", ["table", "places"], ["place"]),
        helper.make_node("Add", ["margin", "place"], ["placed"]),
    ]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([rest[0], *nodes, *rest[1:]])


def test_inspect_tries_the_longest_text(
    text_bundle: Path, change_graph: Callable[..., Path], edit_manifest: Callable[..., None], run: Callable[..., Any]
) -> None:
    change_graph(text_bundle, with_sixteen_positions)
    assert run("inspect", text_bundle)[0] == 0
    edit_manifest(text_bundle, text={"max_length": 17, "special_token_ids": [2, 3], "pad_token_id": 0})
    assert Rationalizer.load(text_bundle)("good").label == "positive"
    status, out, err = run("inspect", text_bundle)
    assert (status, out) == (1, "")
    assert err.startswith("rekd-edge: The graph could not be run (")
    assert err.count("\n") == 1


def swap_output(model: Any, name: str, other: str, kind: int, shape: list[Any]) -> None:
    """Give the tensor `other` the name of an output, and the output's a new one."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [{name: "first", other: name}.get(each, each) for each in names]
    index = next(i for i, value in enumerate(model.graph.output) if value.name == name)
    model.graph.output[index].CopyFrom(tensor(name, kind, shape))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed, "there is an input token_type_ids"),
        (float_mask, r"rationale_mask is tensor\(float\) instead of tensor\(bool\)"),
        (double_margin, r"selection_margin is tensor\(double\) instead of tensor\(float\)"),
        (flat_mask, "rationale_mask has the shape"),
        (fixed_sequence, "input_ids has the shape"),
        (shorter, "reads 8 tokens and the manifest says 16"),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused(
    text_bundle: Path, change_graph: Callable[..., Path], change: Callable[[Any], None], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        Rationalizer.load(change_graph(text_bundle, change))


def test_image_sizes_are_held_against_the_graph(image_bundle: Path, edit_manifest: Callable[..., None]) -> None:
    image = json.loads((image_bundle / "manifest.json").read_text())["image"]
    edit_manifest(image_bundle, image={**image, "height": 24})
    with pytest.raises(InputError, match=r"pixel_values has the shape \['batch', 3, 16, 24\]"):
        Rationalizer.load(image_bundle)


def test_what_the_manifest_says_of_the_graph_is_held_against_the_contract(
    text_bundle: Path, edit_manifest: Callable[..., None]
) -> None:
    def entry(name: str, dtype: str, *shape: Any) -> dict[str, Any]:
        return {"name": name, "dtype": dtype, "shape": list(shape)}

    inputs = [entry(name, "int64", "batch", "sequence") for name in ("input_ids", "attention_mask")]
    outputs = [
        entry("logits", "float32", "batch", "classes"),
        entry("rationale_mask", "bool", "batch", "features"),
        entry("selection_margin", "float32", "batch", "features"),
    ]
    edit_manifest(text_bundle, graph={"inputs": inputs, "outputs": outputs})
    assert Rationalizer.load(text_bundle)("good").label == "positive"
    for changed in (
        [outputs[0], entry("rationale_mask", "float32", "batch", "features"), outputs[2]],
        [entry("logits", "float32", "batch", 3), *outputs[1:]],
        outputs[1:],
    ):
        edit_manifest(text_bundle, graph={"inputs": inputs, "outputs": changed})
        with pytest.raises(InputError, match="does not have the inputs and outputs"):
            Rationalizer.load(text_bundle)


def test_a_text_that_the_graph_cannot_read_is_one_sentence(
    text_bundle: Path, change_graph: Callable[..., Path]
) -> None:
    """The graph's table of words is shorter than the tokenizer's vocabulary; ONNX Runtime says nothing by itself."""

    def fewer_words(model: Any) -> None:
        for weight in model.graph.initializer:
            if weight.name in ("margins", "votes", "special"):
                weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:6], weight.name))

    bundle = change_graph(text_bundle, fewer_words)
    code = f"""
        from rekd_edge import Rationalizer, RekdEdgeError
        try:
            Rationalizer.load({str(bundle)!r}, threads=1)("the good film")
        except RekdEdgeError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("The graph could not be run (")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.parametrize(("old", "new"), [(b"AveragePool", b"AveragePooL"), (b"AveragePool", b"AveragePoo\xff")])
def test_what_onnx_runtime_cannot_open_is_one_sentence_and_nothing_is_printed(
    image_bundle: Path, capfd: pytest.CaptureFixture[str], old: bytes, new: bytes
) -> None:
    """Neither its log nor, of names that are no UTF-8, what its fallback writes to standard output."""
    path = image_bundle / "model.onnx"
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    fields = json.loads((image_bundle / "manifest.json").read_text())
    write_manifest(image_bundle, {name: fields[name] for name in fields if name not in ("schema_version", "files")})
    with pytest.raises(InputError, match=r"model\.onnx cannot be opened by ONNX Runtime"):
        Rationalizer.load(image_bundle)
    assert capfd.readouterr() == ("", "")

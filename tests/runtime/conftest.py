"""Tiny bundles, made with the ONNX helper, whose every output can be computed by hand."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from rekd_edge.runtime.bundle import write_manifest

LOWEST = np.finfo(np.float32).min
SPECIALS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
WORDS = ["good", "bad", "film", "the", "a", "[", "]", "sep", "##s", "caf", "##e", "טוב", "סרט", "."]
VOCABULARY = {**SPECIALS, **{word: len(SPECIALS) + index for index, word in enumerate(WORDS)}}
MARGIN = {"good": 2.0, "bad": 2.0, "טוב": 2.0, "##s": 1.0, "[UNK]": -0.5}  # every other token: -1
VOTE = {"good": (0.0, 2.0), "bad": (2.0, 0.0), "טוב": (0.0, 2.0)}  # logits (negative, positive)


def _tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding()  # load_tokenizer must take it off
    tokenizer.save(str(path))


def _save_graph(path: Path, nodes: list[Any], inputs: list[Any], constants: dict[str, Any]) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("rationale_mask", TensorProto.BOOL, ["batch", "features"]),
        helper.make_tensor_value_info("selection_margin", TensorProto.FLOAT, ["batch", "features"]),
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph([helper.make_node(*node[:3], **node[3]) for node in nodes], "tiny", inputs, outputs)
    graph.initializer.extend(initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _selection_nodes() -> list[Any]:
    """margin [b, f] and feature [b, f] to rationale_mask: margin > 0, else the first largest."""
    return [
        ("Where", ["feature", "margin", "lowest"], ["selection_margin"], {}),
        ("Greater", ["selection_margin", "zero"], ["above"], {}),
        ("Cast", ["above"], ["above_int"], {"to": 6}),
        ("ReduceMax", ["above_int"], ["any"], {"axes": [1], "keepdims": 1}),
        ("Equal", ["any", "zero_int"], ["none"], {}),
        ("ArgMax", ["selection_margin"], ["best"], {"axis": 1, "keepdims": 1}),
        ("Shape", ["selection_margin"], ["shape"], {}),
        ("Gather", ["shape", "one"], ["features"], {}),
        ("Range", ["zero_long", "features", "one"], ["positions"], {}),
        ("Equal", ["positions", "best"], ["is_best"], {}),
        ("And", ["none", "is_best"], ["fallback_any"], {}),
        ("And", ["fallback_any", "feature"], ["fallback"], {}),
        ("Or", ["above", "fallback"], ["rationale_mask"], {}),
        ("Cast", ["rationale_mask"], ["mask_float"], {"to": 1}),
    ]


SELECTION_CONSTANTS = {
    "lowest": LOWEST,
    "zero": np.float32(0),
    "zero_int": np.int32(0),
    "zero_long": np.int64(0),
    "one": np.int64(1),
}


def _text_graph(path: Path) -> None:
    from onnx import TensorProto, helper

    size = len(VOCABULARY)
    margins, votes, special = np.full(size, -1, np.float32), np.zeros((size, 2), np.float32), np.zeros(size, bool)
    for token, index in VOCABULARY.items():
        margins[index] = MARGIN.get(token, -1.0)
        votes[index] = VOTE.get(token, (0.0, 0.0))
        special[index] = token in ("[CLS]", "[SEP]")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    nodes = [
        ("Gather", ["margins", "input_ids"], ["margin"], {}),
        ("Gather", ["special", "input_ids"], ["is_special"], {}),
        ("Not", ["is_special"], ["not_special"], {}),
        ("Equal", ["attention_mask", "one"], ["real"], {}),
        ("And", ["real", "not_special"], ["feature"], {}),
        *_selection_nodes(),
        ("Gather", ["votes", "input_ids"], ["vote"], {}),
        ("Unsqueeze", ["mask_float", "last"], ["weight"], {}),
        ("Mul", ["vote", "weight"], ["weighted"], {}),
        ("ReduceSum", ["weighted", "one_axis"], ["logits"], {"keepdims": 0}),
    ]
    constants = {
        **SELECTION_CONSTANTS,
        "margins": margins,
        "votes": votes,
        "special": special,
        "last": np.array([-1]),
        "one_axis": np.array([1]),
    }
    _save_graph(path, nodes, inputs, constants)


def _image_graph(path: Path) -> None:
    """A patch is selected when its mean is above 0 (brighter than mid-grey)."""
    from onnx import TensorProto, helper

    inputs = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 16, 24])]
    nodes = [
        ("AveragePool", ["pixel_values"], ["pooled"], {"kernel_shape": [8, 8], "strides": [8, 8]}),
        ("ReduceMean", ["pooled"], ["grid"], {"axes": [1], "keepdims": 0}),
        ("Flatten", ["grid"], ["margin"], {"axis": 1}),
        ("Equal", ["margin", "margin"], ["feature"], {}),
        *_selection_nodes(),
        ("ReduceSum", ["mask_float", "one_axis"], ["count"], {"keepdims": 1}),
        ("Neg", ["count"], ["negative"], {}),
        ("Concat", ["negative", "count"], ["logits"], {"axis": 1}),
    ]
    _save_graph(path, nodes, inputs, {**SELECTION_CONSTANTS, "one_axis": np.array([1])})


def _copy_bundle(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.fixture(scope="session")
def pristine_text_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("text") / "bundle"
    folder.mkdir()
    _tokenizer(folder / "tokenizer.json")
    _text_graph(folder / "model.onnx")
    (folder / "README.md").write_text("# a card\n")
    text = {"max_length": 16, "special_token_ids": [2, 3], "pad_token_id": 0}
    fields = {"task": "text-classification", "labels": ["negative", "positive"], "method": "re", "text": text}
    write_manifest(folder, fields)
    return folder


@pytest.fixture(scope="session")
def pristine_image_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("image") / "bundle"
    folder.mkdir()
    _image_graph(folder / "model.onnx")
    image = {"height": 16, "width": 24, "patch_size": 8, "resample": 2, "rescale_factor": 1 / 255}
    image |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    write_manifest(
        folder, {"task": "image-classification", "labels": ["dark", "bright"], "method": "re", "image": image}
    )
    return folder


@pytest.fixture
def text_bundle(pristine_text_bundle: Path, tmp_path: Path) -> Path:
    """A text bundle that a test may damage."""
    return _copy_bundle(pristine_text_bundle, tmp_path / "text-bundle")


@pytest.fixture
def image_bundle(pristine_image_bundle: Path, tmp_path: Path) -> Path:
    """An image bundle that a test may damage."""
    return _copy_bundle(pristine_image_bundle, tmp_path / "image-bundle")


def reseal(bundle: Path) -> None:
    """Make the seal fit whatever stands in the manifest."""
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    (bundle / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


@pytest.fixture
def edit_manifest() -> Callable[..., None]:
    """Change fields of a bundle's manifest in place and seal it again, as anyone can."""

    def edit(bundle: Path, **changes: Any) -> None:
        path = bundle / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        reseal(bundle)

    return edit


@pytest.fixture
def change_graph() -> Callable[..., Path]:
    """Give a bundle another graph, listed and sealed as anyone can; the change is a function of the ONNX model."""
    import onnx

    def change(bundle: Path, edit: Callable[[Any], None]) -> Path:
        model = onnx.load(bundle / "model.onnx")
        edit(model)
        (bundle / "model.onnx").write_bytes(model.SerializeToString())
        fields = json.loads((bundle / "manifest.json").read_text())
        write_manifest(bundle, {name: fields[name] for name in fields if name not in ("schema_version", "files")})
        return bundle

    return change


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `rekd-edge ARGUMENTS` in this process: exit status, standard output, standard error."""
    from rekd_edge import cli

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rekd-edge", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capsys.readouterr()

    return run


NAMES = ["size", "sha256", "name", "dtype", "shape", "text", "graph", "class_thresholds", "seal", "a/b", "a\n"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["re", "0" * 64, "0" * 64 + "\n", "image-classification", "x" * 2000, "../up", "\x1b[2J", "\ud800"]
    )
    | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)


def _places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here] + [place for key, each in inner for place in _places(each, (*here, key))]


@pytest.fixture(scope="session")
def mutated() -> Callable[..., Any]:
    """A copy of a JSON document with one to three values replaced, removed, repeated or added.

    Call it with `data.draw` of hypothesis and the document.
    """

    def mutate(draw: Callable[..., Any], document: Any) -> Any:
        document = json.loads(json.dumps(document))
        for _ in range(draw(st.integers(1, 3))):
            places = _places(document)[1:]
            if not places:
                break
            *way, last = draw(st.sampled_from(places))
            holder = document
            for key in way:
                holder = holder[key]
            change = draw(st.sampled_from(["replace", "replace", "remove", "repeat", "add"]))
            if change == "replace":
                holder[last] = draw(VALUES)
            elif change == "remove":
                del holder[last]
            elif isinstance(holder, list):
                holder.append(holder[last] if change == "repeat" else draw(VALUES))
            else:
                holder[draw(st.sampled_from(NAMES))] = draw(VALUES)
        return document

    return mutate

"""What a bundle's graph may be: plain operators with their weights inside, and the inputs and outputs of the contract.

    model.onnx ── check_operators (bytes) ──► ONNX Runtime opens it ── check_io (names, types, shapes) ──► predictions

ONNX Runtime folds constants while it opens a graph, so the operators are looked at before. The base install has no
`onnx`; `check_operators` therefore walks the protobuf encoding itself, five messages deep, and keeps nothing. It reads
what protobuf's own parser would read, or refuses the file: fields are visited wherever they stand and however often, as
a parser would merge them.

Encoding: https://protobuf.dev/programming-guides/encoding/. Field numbers:
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rekd_edge.errors import InputError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from rekd_edge.runtime.bundle import Manifest

    Tensors = dict[str, tuple[str, tuple[int | None, ...]]]
    Field = tuple[int, int, int, int]
    """Field number, wire type, and where its content begins and ends."""

__all__ = ["MAX_LENGTH_KEY", "check_graph_file", "check_io", "check_operators"]

CONTROL_FLOW = {b"If", b"Loop", b"Scan", b"SequenceMap"}
MAX_NODES = 100_000
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 20, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_OP_TYPE, NODE_ATTRIBUTE = 4, 5
ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS = 5, 10
ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE, ATTRIBUTE_SPARSES = 6, 11, 22, 23
TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14

MAX_LENGTH_KEY = "rekd_edge.max_length"
"""Under this name export writes into the graph how many tokens it reads at most."""
TYPES = {"int64": "tensor(int64)", "float32": "tensor(float)", "bool": "tensor(bool)"}


def check_graph_file(path: Path, *, external_data: bool = False) -> None:
    """`check_operators` of a file.

    Raises:
        InputError: the file cannot be read, or is no graph that a bundle may hold.
    """
    try:
        check_operators(path.read_bytes(), external_data=external_data)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    except ValueError as error:
        raise InputError(f"{path} {error}; export it again.") from error


def check_operators(model: bytes, *, external_data: bool = False) -> None:
    """Refuse an ONNX model that could run without end or read other files.

    Subgraphs (of If, Loop, Scan or any other operator) and functions are refused wherever they stand, so that every
    node runs once; so are sparse tensors and tensors whose data lies in another file.

    Args:
        model: a ModelProto, serialised.
        external_data: allow weights in other files, whose paths ONNX Runtime checks: graphs of more than 2 GB, and
            those that other exporters wrote, keep them there.

    Raises:
        ValueError: why not, as the end of a sentence that begins with the file's name.
    """
    nodes = 0
    for number, wire, start, end in _fields(model, 0, len(model)):
        if wire != LENGTH:
            continue
        if number == MODEL_FUNCTIONS:
            raise ValueError("defines functions, which a bundle's graph has none of")
        if number == MODEL_TRAINING:
            raise ValueError("holds graphs for training, which a bundle's has none of")
        if number == MODEL_GRAPH:
            nodes += _check_graph(model, start, end, external_data)

    if not nodes:
        raise ValueError("is no ONNX graph")
    if nodes > MAX_NODES:
        raise ValueError(f"has more than {MAX_NODES} nodes")


def _check_graph(model: bytes, start: int, end: int, external_data: bool) -> int:
    """Check the nodes and weights of a GraphProto, and count its nodes."""
    nodes = 0
    for number, wire, first, last in _fields(model, start, end):
        if wire != LENGTH:
            continue

        if number == GRAPH_NODE:
            nodes += 1
            _check_node(model, first, last)
        elif number == GRAPH_INITIALIZER and not external_data:
            _check_tensor(model, first, last)
        elif number == GRAPH_SPARSE:
            raise ValueError("holds sparse weights, which a bundle's graph has none of")

    return nodes


def _check_node(model: bytes, start: int, end: int) -> None:
    for number, wire, first, last in _fields(model, start, end):
        if wire != LENGTH:
            continue
        if number == NODE_OP_TYPE and model[first:last] in CONTROL_FLOW:
            raise ValueError(f"has control flow ({model[first:last].decode()}), which a bundle's graph has none of")
        if number == NODE_ATTRIBUTE:
            _check_attribute(model, first, last)


def _check_attribute(model: bytes, start: int, end: int) -> None:
    for number, wire, first, last in _fields(model, start, end):
        if wire != LENGTH:
            continue
        if number in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
            raise ValueError("has control flow (a subgraph), which a bundle's graph has none of")
        if number in (ATTRIBUTE_SPARSE, ATTRIBUTE_SPARSES):
            raise ValueError("holds sparse weights, which a bundle's graph has none of")
        if number in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS):
            _check_tensor(model, first, last)


def _check_tensor(model: bytes, start: int, end: int) -> None:
    for number, wire, first, last in _fields(model, start, end):
        external = number == TENSOR_EXTERNAL and wire == LENGTH
        if external or (number == TENSOR_LOCATION and wire == VARINT and _varint(model, first, last)[0] != 0):
            raise ValueError("keeps weights in another file, and a bundle's graph holds all of its own")


def _fields(data: bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of one message.

    Raises:
        ValueError: the bytes are no message, or use groups, which ONNX does not.
    """
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        start = at

        if wire == VARINT:
            _, at = _varint(data, at, end)
        elif wire == LENGTH:
            length, start = _varint(data, at, end)
            at = start + length
        elif wire == FIXED64:
            at += 8
        elif wire == FIXED32:
            at += 4
        else:
            at = end + 1

        if at > end or not 0 < number < 2**29:
            raise ValueError("is no ONNX graph, or damaged")

        yield number, wire, start, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A base-128 number of at most ten bytes, and where what follows it begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break

        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift

        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at

    raise ValueError("is no ONNX graph, or damaged")


def check_io(session: InferenceSession, manifest: Manifest, path: Path) -> None:
    """Hold the inputs and outputs of an open graph, and those that its manifest states, against the contract.

    Raises:
        InputError: a name, type, number of dimensions or fixed size is another, or the graph reads less than
            `max_length` tokens.
    """
    inputs, outputs = contract_io(manifest)
    stated = manifest.fields.get("graph", {"inputs": [], "outputs": []})
    for kind, wanted, found, claimed in (
        ("input", inputs, session.get_inputs(), stated["inputs"]),
        ("output", outputs, session.get_outputs(), stated["outputs"]),
    ):
        graph = {value.name: (value.type, value.shape) for value in found}
        table = {value["name"]: (TYPES.get(value["dtype"], value["dtype"]), value["shape"]) for value in claimed}
        wrong = _difference(kind, wanted, graph) or (_difference(kind, wanted, table) if claimed else None)
        if wrong is not None:
            raise InputError(f"{path} does not have the inputs and outputs of a bundle's graph: {wrong}; export again.")

    longest = session.get_modelmeta().custom_metadata_map.get(MAX_LENGTH_KEY)
    if manifest.text and longest is not None and longest != str(manifest.text.max_length):
        raise InputError(
            f"{path} reads {longest} tokens and the manifest says {manifest.text.max_length}; export the run again."
        )


def contract_io(manifest: Manifest) -> tuple[Tensors, Tensors]:
    """The inputs and outputs of a bundle's graph: type and shape of each, where None is any size."""
    classes, features = len(manifest.labels), None
    if manifest.image:
        rows, columns = manifest.image.grid
        features = rows * columns
        inputs: Tensors = {"pixel_values": (TYPES["float32"], (None, 3, manifest.image.height, manifest.image.width))}
    else:
        inputs = dict.fromkeys(("input_ids", "attention_mask"), (TYPES["int64"], (None, None)))

    outputs: Tensors = {
        "logits": (TYPES["float32"], (None, classes)),
        "rationale_mask": (TYPES["bool"], (None, features)),
        "selection_margin": (TYPES["float32"], (None, features)),
    }
    if manifest.class_thresholds:
        outputs["rationale_scores"] = (TYPES["float32"], (None, features, classes))

    return inputs, outputs


def _difference(kind: str, wanted: Tensors, found: Mapping[str, tuple[str, Sequence[int | str | None]]]) -> str | None:
    """How tensors differ from the contract. A size that is no number fits any, and a tensor without a shape all; an
    input must not fix a size that varies."""
    if kind == "input" and (more := sorted(found.keys() - wanted.keys())):
        return f"there is an input {more[0]}"

    for name, (dtype, shape) in wanted.items():
        if name not in found:
            return f"there is no {kind} {name}"

        other_type, other_shape = found[name]
        if other_type != dtype:
            return f"{name} is {other_type} instead of {dtype}"
        if not other_shape:
            continue

        fits = len(other_shape) == len(shape) and all(
            not isinstance(other, int) or other == size or (size is None and kind == "output")
            for size, other in zip(shape, other_shape, strict=True)
        )
        if not fits:
            return f"{name} has the shape {list(other_shape)}"

    return None

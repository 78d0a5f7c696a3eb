"""The predictor's part of a bundle's graph alone: fed a rationale, whatever it decides rests on nothing else."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx.utils import Extractor
from onnxruntime import InferenceSession

from rekd_edge.errors import InputError
from rekd_edge.runtime.bundle import LAYOUT
from rekd_edge.runtime.session import open_session

__all__ = ["open_predictor", "predictor_graph"]

MASK, LOGITS = "rationale_mask", "logits"


def predictor_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cut a bundle's graph at `rationale_mask`, which becomes an input (bool `[batch, features]`).

    Raises:
        InputError: the logits do not depend on the mask, as in a graph that decides from the whole input.
    """
    if not any(MASK in node.input for node in model.graph.node):
        raise InputError("This graph decides from the whole input, so it has no predictor of the rationale alone.")

    mask = next(value for value in model.graph.output if value.name == MASK)
    inputs = [value.name for value in model.graph.input]
    model.graph.value_info.append(mask)

    return Extractor(model).extract_model([*inputs, MASK], [LOGITS])


def open_predictor(bundle: Path, threads: int | None = None) -> InferenceSession:
    """Open the predictor's part of a bundle's graph; its output is `logits`.

    Raises:
        InputError: as for `predictor_graph`.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / LAYOUT.graph
        onnx.save(predictor_graph(onnx.load(bundle / LAYOUT.graph)), path)
        return open_session(path, threads)

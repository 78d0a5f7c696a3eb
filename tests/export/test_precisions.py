"""A precision is a scheme and an entry: the guide to adding one, word for word."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import onnx
import pytest
from onnx import TensorProto

from rekd_edge import Rationalizer
from rekd_edge.errors import InputError
from rekd_edge.export import export_bundle
from rekd_edge.precisions import PRECISIONS, Precision

GUIDE = Path(__file__).parents[2] / "docs" / "adding-a-precision.md"


@pytest.fixture
def as_the_guide_says(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme, entry = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    module = ModuleType("rekd_edge.export.half")
    exec(compile(scheme, str(GUIDE), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    ((name, precision),) = eval(f"{{{entry}}}", {"Precision": Precision}).items()
    monkeypatch.setitem(PRECISIONS, name, precision)


@pytest.mark.usefixtures("as_the_guide_says")
def test_a_precision_is_added_as_the_guide_says(trained_run: Path, tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp32", "fp16"):
        manifest = export_bundle(trained_run, tmp_path / precision, precision=precision)
        assert manifest["verified"]
        sizes[precision] = manifest["files"]["model.onnx"]["size"]
    assert sizes["fp16"] < 0.6 * sizes["fp32"]

    quantization = manifest["quantization"]
    assert (manifest["precision"], quantization["scheme"]) == ("fp16", "fp16 weights, computed in float")
    assert quantization["mask_agreement"] >= 0.999
    assert abs(quantization["accuracy_fp16"] - quantization["accuracy_fp32"]) <= 0.01
    assert "Features on which fp16 and fp32 masks agree" in (tmp_path / "fp16" / "README.md").read_text()

    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "fp16" / "model.onnx").graph.initializer}
    assert TensorProto.FLOAT16 in kinds
    text = "A dull, lifeless film."
    answers = [Rationalizer.load(tmp_path / precision)(text) for precision in sizes]
    assert answers[0].mask == answers[1].mask


@pytest.mark.usefixtures("as_the_guide_says")
def test_a_scheme_that_ruins_masks_is_refused(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rekd_edge.errors import FailureError
    from rekd_edge.export.quantization import Quantized

    def negating(graph: onnx.ModelProto, *_: object) -> Quantized:
        node = next(node for node in graph.graph.node if node.output[0] == "selection_margin")
        node.output[0] = "margin"
        graph.graph.node.append(onnx.helper.make_node("Neg", ["margin"], ["selection_margin"]))
        selected = next(node for node in graph.graph.node if node.output[0] == "rationale_mask")
        selected.output[0] = "mask"
        graph.graph.node.append(onnx.helper.make_node("Not", ["mask"], ["rationale_mask"]))
        return Quantized(graph, {"scheme": "none"})

    monkeypatch.setattr(sys.modules["rekd_edge.export.half"], "fp16", negating)
    with pytest.raises(FailureError, match="fp16 masks agree with fp32 on"):
        export_bundle(trained_run, tmp_path / "bundle", precision="fp16")
    assert not (tmp_path / "bundle").exists()


def test_an_unknown_precision_is_refused_with_those_that_exist(make_run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no precision 'int3'.*choose one of fp32, int8"):
        export_bundle(make_run("text"), tmp_path / "bundle", precision="int3")
    assert list(tmp_path.iterdir()) == []

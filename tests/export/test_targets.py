"""Every target gets the same graph; the target decides what is checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from rekd_edge.errors import FailureError
from rekd_edge.export import export_bundle, stages, targets

Run = Callable[..., Path]


@pytest.mark.parametrize("task", ["text", pytest.param("image", marks=pytest.mark.slow)])
def test_one_graph_serves_every_target(task: str, make_run: Run, tmp_path: Path) -> None:
    manifests = {
        target: export_bundle(make_run(task, "drop"), tmp_path / target, precision="int8", target=target)
        for target in ("cpu", "mobile", "web")
    }
    assert len({manifest["files"]["model.onnx"]["sha256"] for manifest in manifests.values()}) == 1
    assert {target: manifest["target"] for target, manifest in manifests.items()} == {name: name for name in manifests}

    check = manifests["web"]["target_check"]
    assert check["runtime"] == "onnxruntime-web (WASM)"
    assert "MultiHeadAttention" in check["operators"]
    listed = {name: record["size"] for name, record in manifests["web"]["files"].items() if name != "README.md"}
    assert check["compressed_bytes"] < check["bytes"] == sum(listed.values())


def test_a_graph_that_is_too_large_for_its_target_is_refused(
    make_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(targets.TARGETS, "web", targets.Target("onnxruntime-web (WASM)", 10_000))
    with pytest.raises(FailureError, match=r"onnxruntime-web \(WASM\) opens at most 10,000"):
        export_bundle(make_run("text"), tmp_path / "bundle", target="web")
    assert not (tmp_path / "bundle").exists()

    assert export_bundle(make_run("text"), tmp_path / "bundle", target="cpu")["verified"]


def test_operators_that_a_runtime_lacks_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("BiasSplitGelu", ["x"], ["y"], domain="com.microsoft"),
        helper.make_node("Fancy", ["y"], ["z"], domain="com.example"),
        helper.make_node("FastGelu", ["z"], ["w"], domain="com.microsoft"),
        helper.make_node("Relu", ["w"], ["v"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "v")]
    model = helper.make_model(helper.make_graph(nodes, "foreign", ends[:1], ends[1:]))
    onnx.save(model, tmp_path / "model.onnx")

    measured, failures = targets.check_target(model, tmp_path, "mobile")
    assert measured["operators"] == ["BiasSplitGelu", "FastGelu"]
    assert [failure.removeprefix("onnxruntime-android, onnxruntime-objc ") for failure in failures] == [
        "has no operator BiasSplitGelu",
        "has no operators of com.example",
    ]


def test_a_failed_target_check_is_recorded_with_force(
    make_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "check_target", lambda *_: ({"runtime": "none"}, ["none has no operator X"]))
    manifest = export_bundle(make_run("image"), tmp_path / "bundle", force=True)
    assert not manifest["verified"]
    assert manifest["failures"] == ["none has no operator X"]

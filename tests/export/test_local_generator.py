"""A local generator in a graph: its reach holds there too, and an int8 bundle selects what the run selects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from rekd_edge import Rationalizer
from rekd_edge.export import export_bundle
from rekd_edge.files import read_json


@pytest.fixture(scope="module")
def local_bundle(make_local_run: Callable[[str], Path], make_once: Callable[..., Path]) -> Callable[..., Path]:
    def make(task: str, precision: str) -> Path:
        run = make_local_run(task)
        return make_once(
            f"local/{task}-{precision}",
            lambda bundle: export_bundle(run, bundle, precision=precision),
        )

    return make


def session(bundle: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("task", ["text", pytest.param("image", marks=pytest.mark.slow)])
def test_int8_masks_equal_fp32_masks(task: str, local_bundle: Callable[..., Path]) -> None:
    manifest = read_json(local_bundle(task, "int8") / "manifest.json")
    assert manifest["verified"]
    assert manifest["quantization"]["generator"] == "float"
    assert manifest["quantization"]["mask_differences"] == manifest["quantization"]["near_ties"] == 0
    assert manifest["parity"]["mask_differences"] == 0


def test_int8_margins_are_bit_for_bit_those_of_fp32(local_bundle: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 60, (1, 40))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    fp32, int8 = (session(local_bundle("text", kind)).run(["selection_margin"], feed)[0] for kind in ("fp32", "int8"))
    assert np.array_equal(fp32, int8)


def test_its_predictor_is_int8(local_bundle: Callable[..., Path]) -> None:
    graph = onnx.load(local_bundle("text", "int8") / "model.onnx").graph
    products = [node for node in graph.node if "Integer" in node.op_type]
    assert products
    assert all(node.name.startswith("predictor/") for node in products)


def test_a_token_changes_margins_within_the_reach_alone(local_bundle: Callable[..., Path]) -> None:
    runtime = session(local_bundle("text", "int8"))
    rng = np.random.default_rng(1)
    ids = rng.integers(5, 60, (1, 40))
    for place in (3, 20, 33):
        changed = ids.copy()
        changed[0, place] = 5 + (ids[0, place] - 4) % 55
        margins = [
            runtime.run(["selection_margin"], {"input_ids": each, "attention_mask": np.ones_like(each)})[0][0]
            for each in (ids, changed)
        ]
        moved = np.flatnonzero(np.abs(margins[0] - margins[1]) > 1e-6)
        assert place in moved
        assert np.abs(moved - place).max() <= 7


def test_the_device_predicts_with_it(local_bundle: Callable[..., Path]) -> None:
    (prediction,) = Rationalizer.load(local_bundle("text", "int8"))(["That pilot looked splendid elsewhere."])
    assert sum(prediction.mask) >= 1

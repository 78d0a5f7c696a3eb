"""Optimum's presets as precisions: measured as ours is, and refused where an answer depends on the batch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from rekd_edge import Rationalizer
from rekd_edge.errors import FailureError, InputError
from rekd_edge.export import export_bundle
from rekd_edge.precisions import PRECISIONS

PRESETS = [name for name in PRECISIONS if name.startswith("optimum-")]


@pytest.fixture
def optimum() -> None:
    pytest.importorskip("optimum.onnxruntime", reason="needs Optimum: pip install -e '.[export,optimum]'")


def test_every_preset_is_one_of_optimums(optimum: None) -> None:
    from optimum.onnxruntime import AutoQuantizationConfig

    assert PRESETS
    assert all(hasattr(AutoQuantizationConfig, name.removeprefix("optimum-")) for name in PRESETS)


def test_what_changes_with_the_batch_is_refused(optimum: None, make_run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FailureError, match=r"mask positions and \d+ labels change with batch"):
        export_bundle(make_run("text", "drop"), tmp_path / "bundle", precision="optimum-avx512_vnni")
    assert list(tmp_path.iterdir()) == []


def test_a_forced_bundle_says_what_was_measured(optimum: None, make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("text", "drop")
    manifest = export_bundle(run, tmp_path / "bundle", precision="optimum-avx2", force=True)
    assert (manifest["precision"], manifest["verified"]) == ("optimum-avx2", False)
    assert manifest["invariance"]["mask_differences"] > 0
    assert manifest["quantization"]["mask_agreement"] < 1
    assert "Optimum's avx2 preset" in manifest["quantization"]["scheme"]

    graph = onnx.load(tmp_path / "bundle" / "model.onnx").graph
    weights = {each.name for each in graph.initializer if each.data_type in (TensorProto.INT8, TensorProto.UINT8)}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(products) >= 12  # of two towers of one layer, and their heads
    assert all(node.input[1] in weights for node in products)

    answer = Rationalizer.load(tmp_path / "bundle")("An absolute delight.")
    assert sum(answer.mask) >= 1


def test_a_local_generator_stays_in_float(optimum: None, make_local_run: Callable[[str], Path], tmp_path: Path) -> None:
    manifest = export_bundle(make_local_run("text"), tmp_path / "bundle", precision="optimum-arm64", force=True)
    assert manifest["quantization"]["generator"] == "float"
    assert manifest["quantization"]["mask_differences"] == 0
    assert manifest["invariance"]["mask_differences"] == 0
    assert manifest["near_ties"]["width"] == pytest.approx(1e-5)
    assert np.isfinite(manifest["quantization"]["largest_logit_difference"])


def test_without_optimum_one_sentence_says_so_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("optimum", "optimum.onnxruntime"):  # which an earlier test may have imported
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"needs optimum\.onnxruntime, which is not installed; install .*optimum\]"):
        export_bundle(tmp_path / "no-run", tmp_path / "bundle", precision="optimum-arm64")

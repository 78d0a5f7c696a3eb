"""Shares of time are sums over the profiler's own events, and nothing of it stays behind."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rekd_edge.runtime.profiling import stage_shares, stage_times


def event(name: str, ts: int, dur: int = 0) -> dict[str, Any]:
    return {"name": name, "ts": ts, "dur": dur, "cat": "Node"}


PROFILE = [
    event("session_initialization", 0, 900),
    event("model_run", 1000, 90),
    event("generator/0/MatMul_kernel_time", 1001, 50),
    event("model_run", 2000, 90),
    event("Gelu_kernel_time", 2003, 4),  # nameless: it follows the MatMul at 2001
    event("generator/0/MatMul_kernel_time", 2001, 10),
    event("generator/0/MatMul_fence_before", 2002, 70),
    event("gather/1/TopK_kernel_time", 2005, 3),
    event("predictor/2/MatMul_kernel_time", 2010, 20),
    event("predictor/3/Add_kernel_time", 2012, 5),
    event("Squeeze_kernel_time", 2020, 1),
]


def test_times_are_summed_by_stage_after_the_uncounted_runs() -> None:
    assert stage_times(PROFILE, uncounted=1) == {"generator": 14, "gather": 3, "predictor": 26}
    assert stage_times(PROFILE)["generator"] == 64


def test_nameless_nodes_alone_count_nowhere() -> None:
    assert stage_times([event("model_run", 0, 9), event("Add_kernel_time", 1, 5)]) == {
        "generator": 0,
        "gather": 0,
        "predictor": 0,
    }


def staged_graph(path: Path) -> Path:
    """Two large products in the generator, one like them in the predictor, nothing to gather."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.eye(512, dtype=np.float32), "weight")
    nodes = [
        helper.make_node("MatMul", [source, "weight"], [output], name=f"{stage}/{source}/MatMul")
        for source, output, stage in (("a", "b", "generator"), ("b", "c", "generator"), ("c", "d", "predictor"))
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 512]) for name in ("a", "d")]
    graph = helper.make_graph(nodes, "staged", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_shares_cover_every_stage_that_works_and_the_profile_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    feeds = [{"a": np.ones((256, 512), np.float32)}] * 8
    shares = stage_shares(staged_graph(tmp_path / "staged.onnx"), feeds, threads=1)
    assert shares is not None
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["gather"] == 0
    assert min(shares["generator"], shares["predictor"]) > 0  # how much more is the machine's affair
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["staged.onnx", "temporary"]

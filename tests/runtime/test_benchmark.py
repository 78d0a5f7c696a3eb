"""`bench` measures what its keys say, on the same inputs for every system."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rekd_edge.errors import InputError
from rekd_edge.runtime import benchmark
from rekd_edge.runtime.benchmark import BenchSettings, run_benchmark

QUICK = BenchSettings(threads=1, repeats=4, warm_up=1, cold_starts=0)


def optimum_folder(folder: Path) -> Path:
    """A classifier as Optimum writes it: it asks for token_type_ids and has logits alone."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    names = ["input_ids", "attention_mask", "token_type_ids"]
    nodes = [
        helper.make_node("Sum", ["float_ids", "float_mask", "float_types"], ["all"]),
        *(
            helper.make_node("Cast", [name], [f"float_{short}"], to=TensorProto.FLOAT)
            for name, short in zip(names, ["ids", "mask", "types"], strict=True)
        ),
        helper.make_node("ReduceSum", ["all", "axis"], ["logits"]),
    ]
    nodes = [*nodes[1:-1], nodes[0], nodes[-1]]
    graph = helper.make_graph(
        nodes,
        "baseline",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.array([1]), "axis")],
    )
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model_quantized.onnx"))
    (folder / "config.json").write_text("{}")
    return folder


def test_text_bench_has_the_keys_of_the_contract(text_bundle: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    result: dict[str, Any] = json.loads(
        json.dumps(
            run_benchmark(
                text_bundle,
                BenchSettings(threads=1, batch_size=2, tokens=10, repeats=4, cold_starts=1),
                baselines=[text_bundle, optimum_folder(tmp_path / "optimum")],
                progress=lambda done, total: steps.append((done, total)),
            )
        )
    )
    assert (result["threads"], result["batch_size"], result["tokens"]) == (1, 2, 10)
    assert 0 < result["rationale_ratio"] < 1
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p95"]
    assert result["throughput_per_s"] > 0
    assert result["size_bytes"] == sum(path.stat().st_size for path in text_bundle.iterdir())
    assert result["shares"] is None  # the tiny graph was not exported with stages
    assert 0 < result["preprocess_ms"] < 1000
    assert 10e6 < result["peak_memory_bytes"] < 500e6
    assert 0 < result["cold_start_s"] < 60
    assert [baseline["name"] for baseline in result["baselines"]] == ["text-bundle", "optimum"]
    for baseline in result["baselines"]:
        assert baseline["ratio"] == pytest.approx(result["latency_ms"]["p50"] / baseline["latency_ms"]["p50"])
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_ratio_is_that_of_the_given_texts(text_bundle: Path) -> None:
    texts = ["good film", "a bad the film", "good"]  # 1/2, 1/4, 1/1
    result = run_benchmark(text_bundle, QUICK, inputs=texts)
    assert result["rationale_ratio"] == pytest.approx((0.5 + 0.25 + 1) / 3)
    assert result["tokens"] == round((4 + 6 + 3) / 3)


def test_image_bench_counts_patches(image_bundle: Path) -> None:
    import numpy as np

    image = np.zeros((16, 24, 3), np.uint8)
    image[:8, :16] = 255
    result = run_benchmark(image_bundle, QUICK, inputs=[image], baselines=[image_bundle / "model.onnx"])
    assert result["tokens"] == 6
    assert result["rationale_ratio"] == pytest.approx(2 / 6)
    assert run_benchmark(image_bundle, QUICK)["tokens"] == 6


def test_what_the_manifest_says_of_int8_is_repeated(text_bundle: Path, edit_manifest: Callable[..., None]) -> None:
    assert run_benchmark(text_bundle, QUICK)["checked"] == {}
    said = {"precision": "int8", "quantization": {"scheme": "rows"}, "invariance": {"rows": 3}, "target_ratio": 0.1}
    edit_manifest(text_bundle, **said)
    result = run_benchmark(text_bundle, QUICK)
    assert result["target_ratio"] == said.pop("target_ratio")
    assert result["checked"] == said
    edit_manifest(text_bundle, method="cls")  # which selects everything, whatever its target
    assert run_benchmark(text_bundle, QUICK)["target_ratio"] is None


def test_shares_are_those_of_an_exported_graph(int8_bundle: Path) -> None:
    shares = run_benchmark(int8_bundle, QUICK)["shares"]
    assert list(shares) == ["generator", "gather", "predictor"]
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0


def test_a_wrong_baseline_or_setting_is_one_clear_error(text_bundle: Path, image_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no baseline"):
        run_benchmark(text_bundle, QUICK, baselines=[tmp_path / "nowhere"])
    with pytest.raises(InputError, match="pixel_values"):
        run_benchmark(text_bundle, QUICK, baselines=[image_bundle])
    folder = optimum_folder(tmp_path / "several")
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="several graphs"):
        run_benchmark(text_bundle, QUICK, baselines=[folder])
    with pytest.raises(InputError, match="16 tokens at most"):
        run_benchmark(text_bundle, BenchSettings(tokens=17))
    with pytest.raises(InputError, match="nothing to measure"):
        run_benchmark(text_bundle, QUICK, inputs=[])
    with pytest.raises(InputError, match="repeats is 0"):
        BenchSettings(repeats=0)


def endless(model: Any) -> None:
    model.graph.node.add(op_type="Loop")


def test_a_baseline_that_could_run_without_end_is_never_opened(
    text_bundle: Path, change_graph: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, an Optimum folder and a bundle alike."""
    import onnx

    folder = optimum_folder(tmp_path / "optimum")
    model = onnx.load(folder / "model_quantized.onnx")
    endless(model)
    onnx.save(model, str(folder / "model_quantized.onnx"))
    bundle = change_graph(Path(shutil.copytree(text_bundle, tmp_path / "bundle")), endless)

    opened: list[Path] = []
    monkeypatch.setattr(benchmark, "open_session", lambda path, threads: opened.append(path))
    for baseline in (folder, folder / "model_quantized.onnx", bundle, bundle / "model.onnx"):
        with pytest.raises(InputError, match="control flow"):
            run_benchmark(text_bundle, QUICK, baselines=[baseline])
    assert opened == []


def test_a_baseline_may_keep_its_weights_beside_it_and_a_bundle_may_not(
    text_bundle: Path, change_graph: Callable[..., Path], tmp_path: Path
) -> None:
    import numpy as np
    import onnx

    folder = optimum_folder(tmp_path / "optimum")
    model = onnx.load(folder / "model_quantized.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(64, np.float32), "weights"))
    onnx.save(
        model,
        str(folder / "model_quantized.onnx"),
        save_as_external_data=True,
        location="model_quantized.onnx_data",
        size_threshold=64,
    )
    assert (folder / "model_quantized.onnx_data").stat().st_size > 0
    assert run_benchmark(text_bundle, QUICK, baselines=[folder])["baselines"][0]["ratio"] > 0

    def outside(model: Any) -> None:
        weight = model.graph.initializer.add(name="outside", data_type=1, dims=[1], data_location=1)
        weight.external_data.add(key="location", value="weights")

    bundle = change_graph(Path(shutil.copytree(text_bundle, tmp_path / "bundle")), outside)
    with pytest.raises(InputError, match="weights in another file"):
        run_benchmark(text_bundle, QUICK, baselines=[bundle])

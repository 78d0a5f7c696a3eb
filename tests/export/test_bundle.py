"""A bundle holds all it promises, or nothing is written."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from rekd_edge.data import DataSettings
from rekd_edge.errors import FailureError, InputError
from rekd_edge.export import export_bundle, stages
from rekd_edge.export.parity import Agreement, Answers
from rekd_edge.export.sample import Sample
from rekd_edge.modeling import RationaleConfig
from rekd_edge.runtime import Rationalizer

Run = Callable[..., Path]
export_graph = stages.export_graph


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def negate_classifier(model: Any, path: Path) -> None:
    """Write a graph that is not the run's: the weights of its largest Gemm are negated."""
    export_graph(model, path)
    graph = onnx.load(path)
    name = next(node.input[1] for node in graph.graph.node if node.op_type == "Gemm")
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), name))
    onnx.save(graph, path)


def test_an_int8_bundle_records_what_was_checked(int8_bundle: Path, trained_run: Path) -> None:
    manifest = manifest_of(int8_bundle)
    config = RationaleConfig.load(trained_run)
    assert {name: manifest[name] for name in ("task", "method", "precision", "target", "isa", "verified")} == {
        "task": "text-classification",
        "method": "re",
        "precision": "int8",
        "target": "cpu",
        "isa": "auto",
        "verified": True,
    }
    assert manifest["labels"] == ["neg", "pos"]
    assert manifest["failures"] == []
    assert manifest["margin_bias"] == config.margin_bias
    assert manifest["text"] == {"max_length": 64, "special_token_ids": [2, 3], "pad_token_id": 0}
    assert [value["name"] for value in manifest["graph"]["outputs"]] == ["logits", "rationale_mask", "selection_margin"]
    parity, quantization, invariance = (manifest[name] for name in ("parity", "quantization", "invariance"))
    assert "static activation scales a channel after LayerNormalization and attention" in quantization["scheme"]
    assert (parity["inputs"], parity["rows"], parity["mask_differences"]) == ("validation", 200, 0)
    assert parity["largest_logit_difference"] <= 1e-4
    assert quantization["mask_agreement"] >= 0.99
    assert abs(quantization["accuracy_int8"] - quantization["accuracy_fp32"]) <= 0.01
    assert invariance["mask_differences"] == invariance["label_differences"] == 0
    assert manifest["calibration"] == {"margin_bias": config.margin_bias, "rows": 128}
    assert manifest["metrics"]["random_mask_accuracy"] < manifest["metrics"]["accuracy"]
    assert {"torch", "onnx", "onnxruntime", "rekd-edge"} <= set(manifest["versions"])


def test_the_files_table_is_true(int8_bundle: Path, digits_bundle: Path) -> None:
    for folder, names in (
        (int8_bundle, {"model.onnx", "tokenizer.json", "README.md", "config.json", "tokenizer_config.json"}),
        (digits_bundle, {"model.onnx", "README.md", "config.json", "preprocessor_config.json"}),
    ):
        files = manifest_of(folder)["files"]
        assert set(files) == names == {path.name for path in folder.iterdir()} - {"manifest.json", "manifest.sha256"}
        for name, record in files.items():
            content = (folder / name).read_bytes()
            assert record == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("task", ["text", pytest.param("image", marks=pytest.mark.slow)])
def test_generated_inputs_stand_in_for_data_that_is_gone(
    make_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    manifest = export_bundle(make_run(task, "drop"), tmp_path / "bundle", precision="int8", target="web", isa="arm64")
    assert "a-folder-that-is-gone" in capsys.readouterr().err
    assert manifest["verified"]
    assert (manifest["parity"]["inputs"], manifest["parity"]["mask_differences"]) == ("generated", 0)
    assert manifest["calibration"]["rows"] == 0
    assert "accuracy_int8" not in manifest["quantization"]
    assert (manifest["target"], manifest["isa"]) == ("web", "arm64")
    assert Rationalizer.load(tmp_path / "bundle").manifest.labels == tuple(manifest["labels"])


def test_given_data_calibrates_and_verifies(make_run: Run, tmp_path: Path) -> None:
    settings = DataSettings(train_limit=20, eval_limit=10)
    manifest = export_bundle(
        make_run("text"), tmp_path / "bundle", calibration_data="builtin:planted", data_settings=settings
    )
    assert (manifest["parity"]["inputs"], manifest["parity"]["rows"]) == ("validation", 10)
    assert manifest["calibration"]["rows"] == 20


def test_long_inputs_are_verified_on_fewer_rows(make_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "VERIFIED_POSITIONS", 200)

    def parity(name: str, **limits: int) -> dict[str, Any]:
        settings = DataSettings(train_limit=20, **limits)
        return export_bundle(
            make_run("text"), tmp_path / name, calibration_data="builtin:planted", data_settings=settings
        )["parity"]

    longest = 32
    assert 200 - longest < parity("few")["positions"] <= 200
    asked_for = parity("more", eval_limit=15)
    assert asked_for["rows"] == 15
    assert asked_for["positions"] > 200


@pytest.mark.slow
def test_one_graph_serves_every_instruction_set(make_run: Run, tmp_path: Path) -> None:
    digests = set()
    for isa in ("auto", "avx2", "avx512_vnni", "arm64"):
        manifest = export_bundle(make_run("image"), tmp_path / isa, precision="int8", isa=isa)
        assert manifest["isa"] == isa
        digests.add(manifest["files"]["model.onnx"]["sha256"])
    assert len(digests) == 1


@pytest.mark.parametrize("task", ["text", pytest.param("image", marks=pytest.mark.slow)])
def test_masks_leave_the_bundle_as_they_left_the_run(
    task: str, trained_run: Path, make_run: Run, tmp_path: Path
) -> None:
    from rekd_edge.evaluate import evaluate

    run, data = (trained_run, "builtin:planted") if task == "text" else (make_run("image", "zero"), "builtin:digits")
    export_bundle(run, tmp_path / "bundle")
    expected = evaluate(run, data, limit=60)
    near = {name: pytest.approx(value, abs=1e-6) for name, value in expected.items() if isinstance(value, float)}
    assert evaluate(tmp_path / "bundle", data, limit=60) == {**expected, **near}


def test_a_graph_that_differs_is_not_written(make_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "export_graph", negate_classifier)
    with pytest.raises(FailureError, match=r"logits differ from the run's.*Nothing was written"):
        export_bundle(make_run("text"), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_force_writes_it_and_says_so(make_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "export_graph", negate_classifier)
    manifest = export_bundle(make_run("text"), tmp_path / "bundle", force=True)
    assert manifest["verified"] is False
    assert "logits differ" in manifest["failures"][0]
    assert manifest_of(tmp_path / "bundle") == manifest
    assert "failed its check: logits differ" in (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask_differences": 1}, "1 mask positions"),
        ({"label_differences": 1}, "1 labels"),
    ],
)
def test_an_answer_that_depends_on_the_batch_is_refused(
    make_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, int], words: str
) -> None:
    found = {"rows": 64, "positions": 999, "mask_differences": 0, "near_ties": 3, "label_differences": 0} | change
    monkeypatch.setattr(stages, "invariance", lambda *_: found)
    with pytest.raises(FailureError, match=words):
        export_bundle(make_run("text"), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "lost", "features", "accepted"),
    [
        (0, 0, 1.0, True),
        (40, 0, 0.99, True),  # labels may change where as many become right as wrong
        (0, 0, 0.9899, False),
        (16, 10, 1.0, True),  # 3 of 1000 are allowed, and two standard deviations of 16 changes are 8
        (16, 12, 1.0, False),
    ],
)
def test_int8_must_keep_masks_and_accuracy(
    monkeypatch: pytest.MonkeyPatch, changed: int, lost: int, features: float, accepted: bool
) -> None:
    rows = 1000
    found = Agreement(
        rows=rows,
        positions=rows,
        mask_differences=0,
        near_ties=0,
        mask_agreement=features,
        label_differences=changed,
        label_agreement=1 - changed / rows,
        largest_logit_difference=0.0,
    )
    right = np.tile(np.array([1, 0], np.float32), (rows, 1))
    wrong = right.copy()
    wrong[:lost] = [0, 1]
    monkeypatch.setattr(stages, "agreement", lambda *_: found)
    sample = Sample("validation", [], np.zeros(rows, np.int64), [])
    _, failures = stages.compare_with_fp32("int8", sample, Answers(right, [], []), Answers(wrong, [], []))
    assert (not failures) == accepted


def test_a_full_disk_leaves_nothing(make_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stages, "write_manifest", full)
    with pytest.raises(OSError, match="No space left"):
        export_bundle(make_run("text"), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("task", "method", "data", "words"),
    [
        ("text", "control", None, "random-mask control"),
        ("text", "re", "builtin:digits", "reads text, builtin:digits is image"),
        ("image", "re", "builtin:planted", "reads image, builtin:planted is text"),
        ("text", "re", "nowhere", "There is no data 'nowhere'"),
    ],
)
def test_unfit_input_is_refused(
    make_run: Run, tmp_path: Path, task: str, method: str, data: str | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        export_bundle(make_run(task, "zero", method), tmp_path / "bundle", calibration_data=data)
    assert list(tmp_path.iterdir()) == []


def test_data_with_other_labels_is_refused(make_run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = "".join(f"a film,{label}\n" for label in ("bad", "good") * 10)
    (data / "train.csv").write_text("text,label\n" + rows)
    with pytest.raises(InputError, match="other labels"):
        export_bundle(make_run("text"), tmp_path / "bundle", calibration_data=str(data))
    assert not (tmp_path / "bundle").exists()


def test_a_taken_folder_is_refused_before_any_work(make_run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export_bundle(Path("no-run-at-all"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_unfinished_run_is_refused(make_run: Run, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(make_run("text"), run)
    (run / name).unlink()
    with pytest.raises(InputError, match=name):
        export_bundle(run, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

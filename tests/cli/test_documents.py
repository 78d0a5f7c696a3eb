"""Each verb prints one JSON document, or a text for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_calls import QUICK, Outcome, train_arguments
from PIL import Image

from rekd_edge import __version__


def test_train_prints_its_metrics(run: Callable[..., Outcome], tmp_path: Path) -> None:
    settings = [*QUICK, "control=null"]
    outcome = run(*train_arguments(tmp_path / "run", "--data", "builtin:planted", "--json", settings=settings))
    assert outcome.status == 0, outcome.err
    assert {"accuracy", "rationale_ratio", "loss", "n"} <= set(outcome.document)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == outcome.document
    assert "epoch 1" in outcome.err
    files = {"config.json", "model.safetensors", "tokenizer.json", "training.json", "metrics.json", "README.md"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == files

    plain = run("evaluate", tmp_path / "run", "--data", "builtin:planted", "--limit", 20)
    assert plain.status == 0
    assert "accuracy" in plain.out


def test_export_prints_the_manifest(run: Callable[..., Outcome], make_run: Callable[..., Path], tmp_path: Path) -> None:
    outcome = run("export", make_run("image"), "--output", tmp_path / "bundle", "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.document == json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert "export: 4/4" in outcome.err
    plain = run("export", make_run("image"), "--output", tmp_path / "second", "--precision", "int8", "--target", "web")
    assert plain.status == 0, plain.err
    for name in ("verified", "parity", "quantization", "invariance"):
        assert name in plain.out
    assert f"rekd-edge bench {tmp_path / 'second'}" in plain.out


def test_inspect_prints_the_manifest(run: Callable[..., Outcome], int8_bundle: Path) -> None:
    assert run("inspect", int8_bundle, "--json").document == json.loads((int8_bundle / "manifest.json").read_text())
    assert "random_mask_accuracy" in run("inspect", int8_bundle).out


def test_run_and_bundle_are_evaluated_alike(run: Callable[..., Outcome], trained_run: Path, int8_bundle: Path) -> None:
    for path in (trained_run, int8_bundle):
        outcome = run("evaluate", path, "--data", "builtin:planted", "--split", "val", "--limit", 50, "--json")
        assert outcome.status == 0, outcome.err
        assert {"n", "accuracy", "macro_f1", "rationale_ratio", "rationale_f1"} <= set(outcome.document)
        assert outcome.document["n"] == 50
        assert outcome.document["accuracy"] >= 0.9
        assert outcome.document["rationale_f1"] >= 0.8


def test_bench_prints_its_measurements(run: Callable[..., Outcome], int8_bundle: Path, digits_bundle: Path) -> None:
    arguments = ["--threads", 1, "--repeats", 3, "--json"]
    text = run("bench", int8_bundle, "--baseline", int8_bundle, "--data", "builtin:planted", *arguments).document
    image = run("bench", digits_bundle, *arguments).document
    fixed = {"threads", "batch_size", "tokens", "rationale_ratio", "latency_ms", "throughput_per_s", "size_bytes",
             "peak_memory_bytes", "cold_start_s", "baselines"}  # fmt: skip
    for report in (text, image):
        assert fixed <= set(report)
        assert {"p50", "p95"} <= set(report["latency_ms"])
    assert {"name", "latency_ms", "ratio"} <= set(text["baselines"][0])
    assert image["tokens"] == 64
    assert text["rationale_ratio"] == pytest.approx(0.1, abs=0.05)


def test_bench_says_when_generated_inputs_miss_the_target(run: Callable[..., Outcome], int8_bundle: Path) -> None:
    given = run("bench", int8_bundle, "--data", "builtin:planted", "--threads", 1, "--repeats", 3, "--json")
    generated = run("bench", int8_bundle, "--threads", 1, "--repeats", 3, "--json")
    assert "give --data" not in given.err
    far = abs(generated.document["rationale_ratio"] - generated.document["target_ratio"]) > 0.02
    assert ("give --data" in generated.err) == far
    assert far  # random words hold more cues than reviews


def test_predict_prints_a_document_a_line(run: Callable[..., Outcome], int8_bundle: Path) -> None:
    outcome = run("predict", int8_bundle, "a superb scene", "", "--json")
    documents = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(documents) == 2
    keys = {"label", "label_id", "scores", "rationale", "mask", "tokens", "rationale_ratio"}
    assert all(keys <= set(document) for document in documents)
    assert outcome.err == ""


def test_predict_reads_lines_whatever_they_hold(run: Callable[..., Outcome], int8_bundle: Path) -> None:
    lines = ["a superb scene", "", "טוב 👩", "ends with a carriage return\r", "no line end"]
    stdin = "\n".join(lines).encode() + b"\n\xff\xfe"
    for json_flag in ([], ["--json"]):
        outcome = run("predict", int8_bundle, "-", *json_flag, stdin=stdin)
        assert (outcome.status, outcome.err) == (0, "")
    documents = [json.loads(line) for line in outcome.out.splitlines()]
    given = [*lines, "\ufffd\ufffd"]
    alone = [json.loads(run("predict", int8_bundle, line.rstrip("\r"), "--json").out) for line in given]
    assert documents == alone
    assert run("predict", int8_bundle, "-", "--json", stdin=b"").out == ""
    mixed = run("predict", int8_bundle, "first", "-", "last", "--json", stdin=b"second\n")
    assert len(mixed.out.splitlines()) == 3


def test_more_lines_than_one_chunk_keep_their_order(run: Callable[..., Outcome], int8_bundle: Path) -> None:
    lines = [f"scene {number} {'superb' if number % 3 else 'dull'}" for number in range(150)]
    outcome = run("predict", int8_bundle, "-", "--json", stdin="\n".join(lines).encode())
    documents = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(documents) == 150
    for number in (0, 63, 64, 149):
        assert documents[number] == json.loads(run("predict", int8_bundle, lines[number], "--json").out)


def test_predict_shows_and_draws(
    run: Callable[..., Outcome], int8_bundle: Path, digits_bundle: Path, tmp_path: Path
) -> None:
    shown = run("predict", int8_bundle, "a superb scene [bold]")
    assert "superb scene [bold]" in shown.out
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "digit.png")
    drawn = run("predict", digits_bundle, tmp_path / "digit.png", "--png", tmp_path / "drawn.png")
    assert drawn.status == 0
    assert "patches" in drawn.out
    assert len(drawn.out.splitlines()) >= 5
    assert Image.open(tmp_path / "drawn.png").size == (224, 224)
    document = run("predict", digits_bundle, tmp_path / "digit.png", "--json").document
    assert set(document) == {"label", "label_id", "scores", "mask", "patch_size", "rationale_ratio"}


def test_demo_prints_its_report(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    import rekd_edge.demo

    report = {"seconds": 1.0, "rows": [], "bundles": ["bundle"]}
    monkeypatch.setattr(rekd_edge.demo, "run_demo", lambda output: report)
    assert run("demo", "--json").document == report


def test_version_and_help(run: Callable[..., Outcome]) -> None:
    assert run("--version").out.strip() == __version__
    for verb in ("demo", "train", "export", "predict", "evaluate", "bench", "inspect"):
        outcome = run(verb, "--help")
        assert (outcome.status, outcome.err) == (0, "")
        assert verb in outcome.out

"""The command line: one JSON document on standard output, one sentence for every failure, the right exit status."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rekd_edge import __version__, cli

QUICK = ["data.train_limit=40", "data.eval_limit=20", "data.max_length=32", "epochs=1", "batch_size=20"]


@dataclass
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `rekd-edge ARGUMENTS` in this process."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["rekd-edge", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return Outcome(end.value.code, *capsys.readouterr())

    return run


def train_arguments(output: Path, *more: str | Path, method: str = "cls", settings: list[str] = QUICK) -> list[Any]:
    given = [word for setting in settings for word in ("--set", setting)]
    return ["train", "--method", method, "--backbone", "random:bert-nano", "--layers", "1", "--output", output,
            *given, *more]  # fmt: skip


def assert_fails(outcome: Outcome, status: int, *words: str) -> None:
    """The status, nothing on standard output, and one sentence of ours as the only or last line on standard error."""
    assert outcome.status == status, outcome.err
    assert outcome.out == ""
    *before, last = outcome.err.splitlines()
    assert last.startswith("rekd-edge: ")
    assert not any(line.startswith("rekd-edge: ") for line in before)
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in last


def table(folder: Path, **splits: list[str]) -> Path:
    """A folder of CSV files with a row for every given label."""
    folder.mkdir()
    for name, labels in splits.items():
        rows = [f"film {number},{label}\n" for number, label in enumerate(labels)]
        (folder / f"{name}.csv").write_text("text,label\n" + "".join(rows))
    return folder


# One JSON document


def test_train_prints_its_metrics(run: Callable[..., Outcome], tmp_path: Path) -> None:
    settings = [*QUICK, "control=null"]
    outcome = run(*train_arguments(tmp_path / "run", "--data", "builtin:planted", "--json", settings=settings))
    assert outcome.status == 0, outcome.err
    assert {"accuracy", "rationale_ratio", "loss", "n"} <= set(outcome.document)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == outcome.document
    assert "epoch 1" in outcome.err
    files = {"config.json", "model.safetensors", "tokenizer.json", "training.json", "metrics.json"}
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


# Wrong usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["rekd-edge --help"]),
        (["paint"], ["paint", "rekd-edge --help"]),
        (["predict"], ["BUNDLE", "rekd-edge predict --help"]),
        (["predict", "bundle", "--speed", "9"], ["--speed"]),
        (["predict", "bundle"], ["Nothing to predict"]),
        (["train"], ["--output"]),
        (["train", "--output", "run"], ["--data", "--backbone"]),
        (["train", "--output", "run", "--method", "magic"], ["magic", "rekd"]),
        (["train", "--output", "run", "--layers", "two"], ["--layers"]),
        (["train", "--output", "run", "--set", "epochs"], ["key=value", "epochs"]),
        (["train", "--output", "run", "--set", "=3"], ["key=value"]),
        (["train", "--output", "run", "--set", "epoch=3"], ["epoch", "did you mean epochs"]),
        (["train", "--output", "run", "--set", "epochs=many"], ["epochs", "whole number"]),
        (["train", "--output", "run", "--set", "epochs=3", "--set", "epochs=4"], ["--set epochs is given twice"]),
        (["train", "--output", "run", "--layers", "2", "--set", "layers=3"], ["--layers 2 and --set layers=3"]),
        (["train", "--output", "run", "--data", "a", "--set", "spec=b"], ["--data a and --set data.spec=b disagree"]),
        (["train", "--output", "run", "--method", "cls", "--set", "target_ratio=0.1"], ["target_ratio has no effect"]),
        (["evaluate", "run", "--data", "imdb", "--set", "data.max_length=9"], ["data.max_length belongs to the run"]),
        (["train", "--output", "run", "--set", "model.size=3"], ["model.size"]),
        (["train", "--output", "run", "--config", "nowhere"], ["recipe nowhere"]),
        (["export", "run", "--output", "bundle", "--precision", "int4"], ["int4", "int8"]),
        (["export", "run", "--output", "bundle", "--set", "epochs=3"], ["epochs", "data.NAME"]),
        (["evaluate", "run", "--data", "builtin:planted", "--limit", "0"], ["--limit"]),
        (["evaluate", "run"], ["--data"]),
        (["bench", "bundle", "--threads", "0"], ["threads"]),
        (["inspect", "bundle", "more"], ["more"]),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_sentence(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(*arguments)
    outcome.out = outcome.out if arguments else ""  # without arguments the help is shown as well
    assert_fails(outcome, 2, *words)
    assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# Bad input


def test_bad_data_is_refused_before_training(run: Callable[..., Outcome], tmp_path: Path) -> None:
    good = table(tmp_path / "good", train=["bad", "good"] * 10)
    single = table(tmp_path / "single", train=["good"] * 10)
    differing = table(tmp_path / "differing", train=["bad", "good"] * 10, test=["awful", "good"])
    tiny = table(tmp_path / "tiny", train=["bad", "good"])
    empty = tmp_path / "empty"
    empty.mkdir()
    output = tmp_path / "run"
    for data, settings, words in (
        ("nowhere", [], ["'nowhere'"]),
        (empty, [], ["holds no data"]),
        (good, ["data.text_column=body"], ["no column 'body'", "text, label"]),
        (good, ["data.label_column=stars"], ["no column 'stars'"]),
        (single, [], ["single label 'good'"]),
        (differing, [], ["labels differ between splits", "awful"]),
        (tiny, [], ["too few"]),
    ):
        outcome = run(*train_arguments(output, "--data", data, settings=[*QUICK, *settings]))
        assert_fails(outcome, 2, *words)
        assert not output.exists()


def test_an_unfit_teacher_is_refused(
    run: Callable[..., Outcome], trained_run: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    output, any_teacher = tmp_path / "run", [*QUICK, "allow_weak_teacher=true"]
    other = table(tmp_path / "other", train=["bad", "good"] * 10)
    for teacher, data, settings, words in (
        (make_run("image"), "builtin:planted", any_teacher, ["reads image, the data is text"]),
        (trained_run, other, any_teacher, ["knows the labels neg, pos", "bad, good"]),
        (make_run("text", "zero", "cls"), "builtin:planted", any_teacher, ["is a cls run"]),
        (make_run("text"), "builtin:planted", QUICK, ["without a random-mask control", "allow_weak_teacher=true"]),
        (trained_run, "builtin:planted", any_teacher, ["reads 64 tokens, this run 32"]),
        (tmp_path / "nowhere", "builtin:planted", QUICK, ["does not exist"]),
    ):
        more = ["--teacher", teacher, "--data", data]
        assert_fails(run(*train_arguments(output, *more, method="rekd", settings=settings)), 2, *words)
        assert not output.exists()
    assert_fails(run(*train_arguments(output, "--data", "builtin:planted", method="rekd")), 2, "--teacher")


def test_a_taken_folder_stays_as_it_is(
    run: Callable[..., Outcome], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    for arguments in (
        train_arguments(tmp_path / "taken", "--data", "builtin:planted"),
        ["export", make_run("text"), "--output", tmp_path / "taken"],
        ["demo", "--output", tmp_path / "taken"],
    ):
        assert_fails(run(*arguments), 2, "not empty")
    assert_fails(run("export", make_run("text"), "--output", tmp_path / "taken" / "mine"), 2, "is a file")
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "mine"]


def test_a_damaged_bundle_is_refused(run: Callable[..., Outcome], int8_bundle: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "tokenizer.json", "manifest.json"):
        bundle = tmp_path / name
        shutil.copytree(int8_bundle, bundle)
        (bundle / name).write_bytes((bundle / name).read_bytes()[:-100])
        for arguments in (["predict", bundle, "good"], ["inspect", bundle], ["bench", bundle]):
            assert_fails(run(*arguments), 2, name)
    assert_fails(run("evaluate", tmp_path, "--data", "builtin:planted"), 2, "neither a run nor a bundle")
    assert_fails(run("predict", tmp_path / "nowhere", "good"), 2, "not a folder")


def test_weights_that_are_not_numbers_are_refused(
    run: Callable[..., Outcome], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    broken = tmp_path / "run"
    shutil.copytree(make_run("text"), broken)
    weights = load_file(broken / "model.safetensors")
    next(iter(weights.values())).flat[0] = np.nan
    save_file(weights, broken / "model.safetensors")
    assert_fails(run("export", broken, "--output", tmp_path / "bundle"), 2, "NaN")
    assert_fails(run("evaluate", broken, "--data", "builtin:planted", "--limit", 10), 2, "NaN")
    assert not (tmp_path / "bundle").exists()


def test_data_of_another_kind_is_refused(
    run: Callable[..., Outcome], int8_bundle: Path, digits_bundle: Path, tmp_path: Path
) -> None:
    for verb in ("evaluate", "bench"):
        assert_fails(run(verb, int8_bundle, "--data", "builtin:digits"), 2, "image")
        assert_fails(run(verb, digits_bundle, "--data", "builtin:planted"), 2, "text")
    assert_fails(run("evaluate", int8_bundle, "--data", "builtin:planted", "--split", "dave"), 2, "train, validation")
    other = table(tmp_path / "other", test=["bad", "good"])
    assert_fails(run("evaluate", int8_bundle, "--data", other), 2, "same labels")
    assert_fails(run("bench", int8_bundle, "--baseline", tmp_path), 2, "no baseline")


def test_an_unreadable_image_is_refused(
    run: Callable[..., Outcome], int8_bundle: Path, digits_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    for name in ("empty.png", "text.png", "nowhere.png", "."):
        assert_fails(run("predict", digits_bundle, tmp_path / name), 2, "image")
    Image.new("L", (8, 8)).save(tmp_path / "fine.png")
    for target in (tmp_path, tmp_path / "no" / "folder.png"):
        assert_fails(run("predict", digits_bundle, tmp_path / "fine.png", "--png", target), 2, "a PNG in a folder")
    assert_fails(run("predict", int8_bundle, "good", "--png", tmp_path / "new.png"), 2, "--png")
    assert {path.name for path in tmp_path.iterdir()} == {"empty.png", "text.png", "fine.png"}


# Failures


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "no space left"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 1, "Permission denied: /root/x"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, 'pip install "rekd-edge[all]"'),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (ValueError("two\nlines"), 1, "ValueError: two lines (set REKD_EDGE_TRACEBACK=1"),
    ],
)
def test_a_failure_is_one_sentence_and_leaves_nothing(
    run: Callable[..., Outcome],
    make_run: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    words: str,
) -> None:
    import rekd_edge.export.bundle

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(rekd_edge.export.bundle, "write_manifest", fail)
    assert_fails(run("export", make_run("image"), "--output", tmp_path / "bundle"), status, words)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_check_is_one_sentence_and_leaves_nothing(
    run: Callable[..., Outcome], make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rekd_edge.export.bundle

    monkeypatch.setattr(rekd_edge.export.bundle, "LOGIT_TOLERANCE", -1.0)
    arguments = ["export", make_run("image"), "--output", tmp_path / "bundle"]
    assert_fails(run(*arguments), 1, "failed its check", "Nothing was written")
    assert list(tmp_path.iterdir()) == []
    forced = run(*arguments, "--force", "--json")
    assert forced.status == 0
    assert forced.document["verified"] is False


def test_an_interrupted_sweep_says_how_it_goes_on(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rekd_edge.sweep.run

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rekd_edge.sweep.run, "run_sweep", interrupt)
    assert_fails(run("sweep", "planted", "--output", tmp_path), 130, "Interrupted; the same command goes on.")


def test_an_interrupted_training_can_be_resumed(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rekd_edge.training.run

    write = rekd_edge.training.run._write

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    arguments = train_arguments(tmp_path / "run", "--data", "builtin:planted", settings=[*QUICK, "control=null"])
    monkeypatch.setattr(rekd_edge.training.run, "_write", interrupt)
    assert_fails(run(*arguments), 130, "Interrupted; the same command with --resume goes on.")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]
    assert_fails(run("export", tmp_path / "run", "--output", tmp_path / "bundle"), 2, "not a finished run")
    monkeypatch.setattr(rekd_edge.training.run, "_write", write)
    assert run(*arguments, "--resume").status == 0
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_traceback_is_shown_on_demand(run: Callable[..., Outcome], int8_bundle: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("REKD_EDGE_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["rekd-edge", "predict", str(int8_bundle), "good"])
    monkeypatch.setattr(cli, "_show", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main()


# The process itself


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `rekd-edge ARGUMENTS` as a process of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "from rekd_edge.cli import main; main()", *map(str, arguments)]
        pipe = subprocess.PIPE
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # shells let what runs in the background ignore it
        together = {**os.environ, **environment}
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=together, preexec_fn=heed)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def read_lines(process: subprocess.Popen[bytes], count: int) -> list[bytes]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def test_of_many_processes_each_machines_first_speaks(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    for place, words in (("0", b"rekd-edge: process 3: "), ("1", b"")):
        launched = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": place}
        process = start("train", "--config", "nowhere", "--output", "run", **launched)
        _, error = process.communicate()
        assert process.returncode == 2
        assert error.startswith(words)
        assert bool(error) == bool(words)


def test_ctrl_c_ends_with_130(start: Callable[..., subprocess.Popen[bytes]], int8_bundle: Path) -> None:
    process = start("predict", int8_bundle, "-", "--json")
    assert process.stdin is not None
    process.stdin.write(b"a superb scene\n" * cli.PREDICT_CHUNK)
    process.stdin.flush()
    assert all(json.loads(line)["label"] for line in read_lines(process, cli.PREDICT_CHUNK))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130  # before its input ends, which would end it too
    assert process.communicate() == (b"", b"rekd-edge: Interrupted.\n")


def test_a_reader_that_leaves_is_no_failure(start: Callable[..., subprocess.Popen[bytes]], int8_bundle: Path) -> None:
    process = start("predict", int8_bundle, "-", "--json")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"a superb scene\n" * cli.PREDICT_CHUNK)
    process.stdin.flush()
    read_lines(process, 1)
    process.stdout.close()
    process.stdin.write(b"a superb scene\n" * cli.PREDICT_CHUNK)
    process.stdin.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=20) == 0


def test_any_terminal_encoding_will_do(start: Callable[..., subprocess.Popen[bytes]], int8_bundle: Path) -> None:
    for flags in ([], ["--json"]):
        process = start("predict", int8_bundle, "סרט טוב 👩 good", *flags, PYTHONIOENCODING="ascii:strict")
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, b"")
        out.decode("ascii")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["inspect"]])  # less and more than a buffer holds
def test_a_full_standard_output_is_a_failure(int8_bundle: Path, arguments: list[str]) -> None:
    given = [*arguments, str(int8_bundle)] if "inspect" in arguments else arguments
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-c", "from rekd_edge.cli import main; main()", *given]
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=buffered, timeout=20, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"no space left" in done.stderr

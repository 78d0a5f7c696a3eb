"""What broke in the first release, D1 to D15 of its adversarial test, each by the command line.

    REKD_EDGE_PYTHON=/environment/of/another/release/bin/python pytest -m slow tests/releases

runs the same against another release; docs/reliability.md says what the first one, 8acea9a, answered.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from release_calls import IMAGE, LONG, SHORT, SMALL, TEXT, Release, rekd_edge

pytestmark = pytest.mark.slow


def edit_manifest(bundle: Path, **changes: Any) -> None:
    """Other values, with the digests of the files that lie there now, and the seal that anyone can compute."""
    file, seal = bundle / "manifest.json", bundle / "manifest.sha256"
    fields = {**json.loads(file.read_text()), **changes}
    for name, record in fields["files"].items():
        content = (bundle / name).read_bytes()
        record.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    file.write_text(json.dumps(fields))
    if seal.exists():
        seal.write_text(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  manifest.json\n")


def foreign_module(path: Path) -> Path:
    """A module that leaves a file behind when it is imported, and that file."""
    trace = path.parent.parent / "executed"
    path.write_text(f"open({str(trace)!r}, 'w').close()\n")
    return trace


@pytest.mark.parametrize("name", ["rekd_edge", "pickle"])
def test_d1_a_module_in_the_current_folder_is_not_imported(name: str, bundle: Path, texts: Path) -> None:
    trace = foreign_module(bundle / f"{name}.py")
    measured = rekd_edge("bench", ".", "--repeats", "1", folder=bundle)
    predicted = rekd_edge("predict", ".", "--input", texts, "--output", bundle.parent / "rows", folder=bundle)
    assert not trace.exists()
    assert (measured.status, predicted.status) == (0, 0), (measured, predicted)


def test_d2_a_backbone_with_code_is_refused_without_a_question(release: Release, tmp_path: Path) -> None:
    backbone = tmp_path / "backbone"
    backbone.mkdir()
    trace = foreign_module(backbone / "evil.py")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}}
    (backbone / "config.json").write_text(json.dumps(config))
    done = release("train", "--output", tmp_path / "run", *TEXT, "--backbone", backbone, given="y\n" * 9)
    assert not trace.exists()
    assert "auto_map" in done.sentence()
    assert "[y/N]" not in done.out + done.err


def test_d3_bulk_prediction_deletes_nothing_behind_a_link(bundle: Path, texts: Path, tmp_path: Path) -> None:
    elsewhere, output = tmp_path / "elsewhere", tmp_path / "rows"
    elsewhere.mkdir()
    output.mkdir()
    (elsewhere / "thesis.txt").write_text("mine")
    (output / ".rekd-edge").symlink_to(elsewhere)
    rekd_edge("predict", bundle, "--input", texts, "--output", output)
    assert (elsewhere / "thesis.txt").read_text() == "mine"


def test_d4_resume_writes_nothing_behind_a_link(release: Release, tmp_path: Path) -> None:
    output, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    release.cut_off(output, *LONG)
    (output / "checkpoints").rename(elsewhere)
    before = sorted(path.relative_to(elsewhere) for path in elsewhere.rglob("*"))
    (output / "checkpoints").symlink_to(elsewhere)
    release("train", "--output", output, *LONG, "--resume")
    assert sorted(path.relative_to(elsewhere) for path in elsewhere.rglob("*")) == before


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "tear"), [("optimizer.pt", empty), ("rng_state.pth", empty), ("optimizer.pt", Path.unlink)]
)
def test_d5_a_torn_checkpoint_is_passed_over(
    name: str, tear: Callable[[Path], None], release: Release, tmp_path: Path
) -> None:
    newest = release.cut_off(tmp_path / "run", *LONG)
    tear(newest / name)
    done = release("train", "--output", tmp_path / "run", *LONG, "--resume")
    assert newest.name in done.sentence(0)


def test_d6_one_of_two_trainings_in_a_folder_is_refused(release: Release, tmp_path: Path) -> None:
    words = ["train", "--output", tmp_path / "run", "--method", "cls", *TEXT, *SHORT, "--seed"]
    both = [release.start(*words, seed) for seed in "12"]
    refused, trained = sorted((release.wait(*each) for each in both), key=lambda done: -done.status)
    trained.sentence(0)
    *said, _ = refused.sentence().splitlines()
    assert all(line.startswith("chosen: ") for line in said)  # before it trained anything


def test_d7_an_image_bomb_costs_one_row(make_once: Callable[..., Path], release: Release, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    trained = make_once("adversarial/images", lambda folder: release("train", "--output", folder, *IMAGE, *SHORT))
    bundle = make_once("adversarial/image-bundle", lambda folder: release("export", trained, "--output", folder))
    table = pa.table({"image": pa.array([png(80_000_000, 1), png(8, 8)], pa.binary())})
    parquet.write_table(table, tmp_path / "images.parquet")

    done = rekd_edge("predict", bundle, "--input", tmp_path / "images.parquet", "--output", tmp_path / "rows")
    rows = [row for file in (tmp_path / "rows").glob("*.parquet") for row in parquet.read_table(file).to_pylist()]
    assert [row["label"] is None for row in rows] == [True, False], done


def png(width: int, height: int) -> bytes:
    """A black bilevel PNG, of few bytes whatever its size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(height * (1 + (width + 7) // 8)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_d8_swapped_labels_are_found(bundle: Path) -> None:
    file = bundle / "manifest.json"
    fields = json.loads(file.read_text())
    fields["labels"].reverse()
    file.write_text(json.dumps(fields))
    assert "manifest" in rekd_edge("predict", bundle, "good").sentence()


def test_d9_escape_sequences_do_not_reach_the_terminal(release: Release, bundle: Path, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07"
    edit_manifest(bundle, method=evil)
    for done in (
        rekd_edge("inspect", bundle),
        release("train", "--output", tmp_path / "run", "--config", evil),
        release("train", "--output", tmp_path / "run", *TEXT, "--backbone", evil),
    ):
        assert done.out + done.err
        assert "\x1b" not in done.out + done.err


@pytest.mark.parametrize(
    "words",
    [
        [*TEXT, *SHORT, "--method", "cls", "--set", "method=re"],
        ["--config", "planted", "--set", "spec=builtin:digits", *SMALL, *SHORT],
    ],
)
def test_d10_settings_that_disagree_are_refused(words: list[str], release: Release, tmp_path: Path) -> None:
    release("train", "--output", tmp_path / "run", *words).sentence()
    assert not (tmp_path / "run").exists()


def test_d11_an_endless_graph_is_refused(bundle: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "model.onnx")
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    last = next(each for each in model.graph.node if "logits" in each.output)
    last.output[list(last.output).index("logits")] = "first"
    body = onnx.helper.make_graph(
        [node("Identity", ["on"], ["on_still"]), node("Identity", ["before"], ["after"])],
        "body",
        [value("i", 7, []), value("on", 9, []), value("before", 1, ["batch", 2])],
        [value("on_still", 9, []), value("after", 1, ["batch", 2])],
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(node("Loop", ["", "yes", "first"], ["logits"], body=body))
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    edit_manifest(bundle)
    assert "control flow" in rekd_edge("predict", bundle, "good", limit=60).sentence()  # or it never ends


def test_d11_the_longest_text_is_held_against_the_graph(bundle: Path) -> None:
    text = json.loads((bundle / "manifest.json").read_text())["text"]
    edit_manifest(bundle, text={**text, "max_length": 33})
    assert "33" in rekd_edge("predict", bundle, "good").sentence()


def test_d12_closed_streams_and_no_columns(bundle: Path) -> None:
    assert rekd_edge("predict", bundle, "good", redirect="2>&-").status == 0
    assert rekd_edge("predict", bundle, "good", COLUMNS="0").out.strip()
    rekd_edge("predict", bundle, "-", redirect="<&-").sentence(0)


def test_d13_a_corrupt_image_is_named_and_leaves_nothing(release: Release, tmp_path: Path) -> None:
    from PIL import Image

    chance = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for label in ("a", "b"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for number in range(8):
                Image.fromarray(chance.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")
    torn = tmp_path / "data" / "train" / "b" / "5.png"
    torn.write_bytes(torn.read_bytes()[:60])

    words = ["--backbone", "random:vit-nano", "--layers", "1", "--set", "epochs=1", "--method", "cls"]
    done = release("train", "--output", tmp_path / "run", "--data", tmp_path / "data", *words)
    assert "5.png" in done.sentence()
    assert not (tmp_path / "run").exists()


def test_d14_the_next_export_removes_what_a_killed_one_left(release: Release, run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "bundle"
    output.parent.mkdir()
    process, streams = release.start("export", run, "--output", output)
    end = time.monotonic() + 60
    while not beside(output) and time.monotonic() < end:
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    release.wait(process, streams)
    assert beside(output)
    release("export", run, "--output", output).sentence(0)
    assert not beside(output)


def beside(output: Path) -> list[str]:
    """Folders beside an output, locks apart."""
    return [path.name for path in output.parent.iterdir() if path.is_dir() and path.name not in (output.name, ".locks")]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("learning_rte=1", "did you mean learning_rate?"),
        (f"seed=1{'0' * 400}", "seed"),
        ("data.max_length=4294967295", "max_length"),
    ],
)
def test_d15_a_wrong_setting_is_one_sentence(setting: str, said: str, release: Release, tmp_path: Path) -> None:
    assert said in release("train", "--output", tmp_path / "run", *TEXT, "--set", setting).sentence()


def test_d15_threads_have_a_bound(bundle: Path) -> None:
    assert "threads" in rekd_edge("bench", bundle, "--threads", "100000", "--repeats", "1", limit=60).sentence()


def test_d15_a_byte_order_mark_shifts_no_span(bundle: Path) -> None:
    plain, marked = (
        rekd_edge("predict", bundle, "-", "--json", given=f"{mark}good film\n", PYTHONUTF8="1")
        for mark in ("", "\ufeff")
    )
    assert json.loads(marked.out)["rationale"] == json.loads(plain.out)["rationale"]


def test_d15_a_doubled_header_is_refused(release: Release, tmp_path: Path) -> None:
    rows = "".join(f"good {number},bad {number},{number % 2}\n" for number in range(200))
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "validation", "test"):
        (data / f"{split}.csv").write_text("text,text,label\n" + rows)
    done = release("train", "--output", tmp_path / "run", *TEXT, *SHORT, "--data", data)
    assert "two columns" in done.sentence()

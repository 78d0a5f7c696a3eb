"""Parquet in, Parquet out: every row once and in order, as the runtime alone answers it, whatever is killed between."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rekd_edge import FailureError, InputError, Rationalizer, bulk, cli
from rekd_edge.bulk import predict_files
from rekd_edge.bulk.rows import output_fields, predict_batch
from rekd_edge.engines import EngineSettings

TWO = EngineSettings(workers=2)
WORDS = "An absolute delight from the first scene très bon dull lifeless film [SEP] סרט טוב !".split()  # noqa: SIM905


def texts(count: int, seed: int = 0) -> list[str | None]:
    """Texts of 0 to 40 words, some of them null."""
    choose = random.Random(seed)
    rows = [" ".join(choose.choices(WORDS, k=choose.randint(0, 40))) for _ in range(count)]
    return [None if choose.random() < 0.05 else text for text in rows]


def write(path: Path, row_group_size: int = 7, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.ParquetFile(path).read().to_pylist()


def close(found: Any, wanted: Any) -> bool:
    """Equal, but for the last digits of numbers that came out of another batch."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(close(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, float):
        return found == pytest.approx(wanted, abs=1e-5)
    return bool(found == wanted)


def check_rows(found: list[dict[str, Any]], inputs: list[Any], rationalizer: Rationalizer, missing: str) -> None:
    """Each row is what the runtime says about its input alone."""
    assert len(found) == len(inputs)
    for row, value in zip(found, inputs, strict=True):
        try:
            answer = rationalizer(value).to_dict() if value is not None else None
            error = None if answer else missing
        except InputError as problem:
            answer, error = None, str(problem)
        assert row["error"] == error
        for name in output_names(rationalizer):
            assert close(row[name], answer[name] if answer else None), (name, value)


def output_names(rationalizer: Rationalizer) -> list[str]:
    """The fields of a prediction in the contract."""
    both = ["label", "label_id", "scores", "mask", "rationale_ratio"]
    return both + (["rationale", "tokens", "truncated"] if rationalizer.manifest.text else ["patch_size"])


def test_texts_as_the_runtime_answers_them(text_bundle: Path, tmp_path: Path) -> None:
    one, two = texts(45, 1), texts(30, 2)
    write(tmp_path / "in" / "one.parquet", id=list(range(45)), text=pa.array(one), label=[7] * 45, error=["e"] * 45)
    write(tmp_path / "in" / "deep" / "two.parquet", review=pa.array(two, pa.large_string()))
    write(tmp_path / "in" / "deep" / "none.parquet", text=pa.array([], pa.string()))
    write(tmp_path / "in" / "dictionary.parquet", text=pa.array(two).dictionary_encode())
    write(tmp_path / "in" / ".hidden" / "one.parquet", text=one)
    report = predict_files(text_bundle, tmp_path / "in", tmp_path / "out", TWO, rows_per_task=20)
    found = {str(path.relative_to(tmp_path / "out")): rows(path) for path in (tmp_path / "out").rglob("*.parquet")}
    assert found.keys() == {"one.parquet", "deep/two.parquet", "deep/none.parquet", "dictionary.parquet"}
    assert not (tmp_path / "out" / ".rekd-edge").exists()
    rationalizer = Rationalizer.load(text_bundle, threads=1)
    null = "The text is missing (null)."
    check_rows(found["one.parquet"], one, rationalizer, null)
    check_rows(found["deep/two.parquet"], two, rationalizer, null)
    check_rows(found["dictionary.parquet"], two, rationalizer, null)
    assert found["deep/none.parquet"] == []
    assert [row["id"] for row in found["one.parquet"]] == list(range(45))
    assert [row["text"] for row in found["one.parquet"]] == one
    assert {(row["input_label"], row["input_error"]) for row in found["one.parquet"]} == {(7, "e")}
    missing = one.count(None) + 2 * two.count(None)
    assert {name: report[name] for name in ("rows", "files", "errors", "predicted")} == {
        "rows": 105,
        "files": 4,
        "errors": missing,
        "predicted": 105,
    }


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def test_images_as_the_runtime_answers_them(digits_bundle: Path, tmp_path: Path) -> None:
    good = [png(seed) for seed in range(5)]
    contents = [good[0], b"no image", good[1], None, good[2], b""]
    write(tmp_path / "in" / "bytes.parquet", image=pa.array(contents, pa.binary()), id=list("abcdef"))
    structs = [{"bytes": value, "path": f"{i}.png"} for i, value in enumerate(contents)]
    (tmp_path / "in" / "3.png").write_bytes(good[3])  # where the bytes are null, the path stands for them
    write(tmp_path / "in" / "struct.parquet", image=[*structs, None, {"bytes": None, "path": None}])
    write(tmp_path / "in" / "path.parquet", image=["3.png", "absent.png", str(tmp_path / "in" / "3.png"), None])
    report = predict_files(digits_bundle, tmp_path / "in", tmp_path / "out", TWO)
    found = {path.stem: rows(path) for path in (tmp_path / "out").rglob("*.parquet")}
    rationalizer = Rationalizer.load(digits_bundle, threads=1)
    null = "The image is missing (null)."
    check_rows(found["bytes"], contents, rationalizer, null)
    check_rows(found["struct"], [*contents[:3], good[3], *contents[4:], None, None], rationalizer, null)
    here = str(tmp_path / "in" / "3.png")
    check_rows(found["path"], [here, str(tmp_path / "in" / "absent.png"), here, None], rationalizer, null)
    assert "image" not in found["bytes"][0]
    assert [row["id"] for row in found["bytes"]] == list("abcdef")
    assert [row["image"] for row in found["struct"]] == [*(f"{i}.png" for i in range(6)), None, None]
    assert found["path"][1]["image"] == "absent.png"
    assert report["errors"] == 3 + 4 + 2


ODD_TEXTS = ["", " ", "\x00", "[CLS]", "a" * 9000, "👩‍👩‍👧", "e\u0301"]
ODD = st.one_of(st.none(), st.text(max_size=60), st.sampled_from(ODD_TEXTS))


@given(st.lists(ODD, max_size=12))
@settings(max_examples=40)
def test_any_text_has_one_row(text_bundle: Path, values: list[str | None]) -> None:
    rationalizer = Rationalizer.load(text_bundle, threads=1, verify=False)
    batch = pa.RecordBatch.from_pydict({"text": pa.array(values, pa.string())})
    schema = output_fields(batch.schema, "text", rationalizer.manifest)
    found = predict_batch(batch, "text", rationalizer, schema, Path()).to_pylist()
    assert [row["text"] for row in found] == values
    check_rows(found, values, rationalizer, "The text is missing (null).")


def test_a_text_that_is_not_utf8_is_its_rows_error(text_bundle: Path, tmp_path: Path) -> None:
    offsets = np.array([0, 9, 13, 17], np.int32)
    raw = pa.StringArray.from_buffers(3, pa.py_buffer(offsets), pa.py_buffer(b"a delightcaf\xe9dull"))
    write(tmp_path / "in.parquet", text=raw)
    assert predict_files(text_bundle, tmp_path / "in.parquet", tmp_path / "out")["errors"] == 1
    table = pq.read_table(tmp_path / "out" / "in.parquet", columns=["label", "error"]).to_pylist()
    assert [row["error"] for row in table] == [None, "The text is not valid UTF-8.", None]
    assert [row["label"] is None for row in table] == [False, True, False]


KILLED = """
import sys
from pathlib import Path
from rekd_edge.bulk import predict_files
from rekd_edge.engines import EngineSettings
bundle, source, output, engine = sys.argv[1:]
predict_files(Path(bundle), Path(source), Path(output), EngineSettings(engine, 2), rows_per_task=40)
"""


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "kills"), [("local", 2), pytest.param("ray", 1, marks=needs_ray)])
def test_a_killed_call_goes_on_where_it_was(engine: str, kills: int, text_bundle: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, again and again, until the work is done: as if nothing had been."""
    for i in range(6):
        write(tmp_path / "in" / f"{i}.parquet", id=list(range(i * 100, i * 100 + 100)), text=pa.array(texts(100, i)))
    command = [sys.executable, "-c", KILLED, text_bundle, tmp_path / "in", tmp_path / "out", engine]
    before: dict[Path, int] = {}
    for kill in [*[True] * kills, False]:
        caller = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while kill and caller.poll() is None:
            if len(results(tmp_path / "out").keys() - before.keys()) > 2:
                caller.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        _, err = caller.communicate()
        assert caller.returncode == (-signal.SIGKILL if kill else 0), err
        time.sleep(0.5)  # the workers have gone too, with whatever they were about to finish
        now = results(tmp_path / "out")
        assert {path for path in before if path.parent == tmp_path / "out"} <= now.keys()
        assert all(now[path] == before[path] for path in now.keys() & before.keys())  # nothing was done twice
        before = now
    predict_files(text_bundle, tmp_path / "in", tmp_path / "undisturbed", EngineSettings(workers=1))
    assert set(results(tmp_path / "out")) == {tmp_path / "out" / f"{i}.parquet" for i in range(6)}
    for i in range(6):
        found, wanted = (rows(tmp_path / folder / f"{i}.parquet") for folder in ("out", "undisturbed"))
        assert len(found) == len(wanted) == 100
        assert all(close(row, other) for row, other in zip(found, wanted, strict=True))
    assert not (tmp_path / "out" / ".rekd-edge").exists()


def results(folder: Path) -> dict[Path, int]:
    """Finished files and pieces, and when they were written."""
    found = {}
    for path in folder.rglob("*.parquet"):
        with suppress(FileNotFoundError):  # a piece that has just become part of its file
            if path.is_file():
                found[path] = path.stat().st_mtime_ns
    return found


def test_the_same_call_again_does_nothing(
    text_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.parquet", "b.parquet/0.parquet"):  # Spark gives folders such names
        write(tmp_path / "in" / name, text=texts(5))
    first = predict_files(text_bundle, tmp_path / "in", tmp_path / "out")
    written = results(tmp_path / "out")
    capsys.readouterr()
    again = predict_files(text_bundle, tmp_path / "in", tmp_path / "out")
    assert capsys.readouterr().err == "Nothing to do: all 10 rows of 2 files are predicted already.\n"
    assert (first["predicted"], again["predicted"]) == (10, 0)
    assert all(first[name] == again[name] for name in ("rows", "files", "errors"))
    assert results(tmp_path / "out") == written
    (tmp_path / "out" / "a.parquet").unlink()
    assert predict_files(text_bundle, tmp_path / "in", tmp_path / "out")["predicted"] == 5
    other = tmp_path / "out" / "b.parquet" / "0.parquet"
    assert results(tmp_path / "out")[other] == written[other]


def test_leftovers_of_other_work_are_removed_or_refused(text_bundle: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    write(source / "a.parquet", text=texts(9), summary=texts(9, 1))
    leftovers = [output / ".rekd-edge" / name for name in ("1.tmp", "a.parquet/0-3.parquet", "old/5-9.parquet")]
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"PAR1")
    predict_files(text_bundle, source, output, rows_per_task=3)
    assert sorted(path.name for path in output.rglob("*")) == ["a.parquet"]

    def refused(bundle: Path = text_bundle, **options: Any) -> str:
        written = results(output)
        with pytest.raises(InputError) as error:
            predict_files(bundle, source, output, **options)
        assert results(output) == written
        return str(error.value)

    words = f"{output / 'a.parquet'} is not the result of this bundle, input and column; remove it or give --output"
    assert refused(text_column="summary").startswith(words)
    other = shutil.copytree(text_bundle, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    changed = {**manifest, "method": "other"}
    del changed["seal"]  # as bundles of version 0.1 have none
    (other / "manifest.json").write_text(json.dumps(changed))
    (other / "manifest.sha256").unlink()
    assert refused(other).startswith(words)
    content = (source / "a.parquet").read_bytes()
    write(source / "a.parquet", text=texts(9, 5), summary=texts(9, 1))
    assert refused().startswith(words)
    (source / "a.parquet").write_bytes(content)  # the same content again, whatever its time
    assert predict_files(text_bundle, source, output)["predicted"] == 0
    write(output / "stray.parquet", text=["one"])
    assert refused().startswith(f"{output / 'stray.parquet'} is not the result")
    one = write(tmp_path / "one.pq", text=texts(3, 1))  # an input file may have any suffix
    predict_files(text_bundle, one, tmp_path / "ones")
    with pytest.raises(InputError, match=r"one\.pq is not the result"):
        predict_files(other, one, tmp_path / "ones")


def test_a_damaged_file_keeps_no_other_from_its_result(text_bundle: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b", "c"):
        write(source / f"{name}.parquet", row_group_size=500, text=[f"{i} {name}" for i in range(500)])
    good = (source / "b.parquet").read_bytes()
    (source / "b.parquet").write_bytes(good[:100] + bytes(800) + good[900:])
    with pytest.raises(FailureError, match=r"b\.parquet cannot be read as Parquet") as error:
        predict_files(text_bundle, source, output)
    assert "goes on from there" in str(error.value)
    assert {path.stem for path in results(output)} == {"a", "c"}
    (source / "b.parquet").write_bytes(good)
    assert predict_files(text_bundle, source, output)["predicted"] == 500
    assert [row["text"] for row in rows(output / "b.parquet")] == [f"{i} b" for i in range(500)]


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run `rekd-edge predict ARGUMENTS` in this process: status, standard output, standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rekd-edge", "predict", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capfd.readouterr()

    return run


def test_the_command_prints_one_document(command: Command, text_bundle: Path, tmp_path: Path) -> None:
    write(tmp_path / "in.parquet", body=["a delight", None], text=["dull", "dull"])
    flags = [
        "--input",
        tmp_path / "in.parquet",
        "--output",
        tmp_path / "out",
        "--text-column",
        "body",
        "--workers",
        "1",
    ]
    status, out, err = command(text_bundle, *flags, "--json")
    document = json.loads(out)
    assert status == 0, err
    assert {name: document[name] for name in ("rows", "files", "errors")} == {"rows": 2, "files": 1, "errors": 1}
    assert document["rows_per_s"] == pytest.approx(2 / document["seconds"], rel=0.1)
    assert "predict: 2/2 rows" in err
    assert [row["label"] is None for row in rows(tmp_path / "out" / "in.parquet")] == [False, True]
    assert command(text_bundle, *flags)[:2] == (0, "2 rows in 1 files, 1 without a prediction\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["TEXT", "--input", "nowhere", "--output", "out"], "nowhere does not exist; give --input a Parquet file"),
        (["TEXT", "--input", "empty", "--output", "out"], "empty holds no .parquet files; give --input"),
        (["TEXT", "--input", "note.parquet", "--output", "out"], "note.parquet cannot be read as Parquet"),
        (["TEXT", "--input", "in", "--output", "in/out"], "lie in one another; give --output a folder of its own"),
        (["TEXT", "--input", "in", "--output", "in"], "lie in one another"),
        (["TEXT", "--input", "in", "--output", "."], "lie in one another"),
        (["TEXT", "--input", "in/a.parquet", "--output", "in"], "lie in one another"),
        (["TEXT", "--input", "in", "--output", "note.parquet"], "note.parquet is a file; give --output a folder"),
        (["TEXT", "--input", "in", "--output", "out", "--text-column", "body"], "has no column 'body', only: text, id"),
        (
            ["TEXT", "--input", "in", "--output", "out", "--text-column", "id"],
            "holds no texts; name another with",
        ),
        (["TEXT", "--input", "in", "--output", "out", "--image-column", "id"], "The bundle classifies texts; name"),
        (
            ["IMAGE", "--input", "in", "--output", "out"],
            "no image column that is known by its name, only: text, id",
        ),
        (["IMAGE", "--input", "in", "--output", "out", "--image-column", "id"], "holds no images; name another with"),
        (["TEXT", "--input", "taken", "--output", "out"], "has a column 'input_label', and another would be renamed"),
        (["TEXT", "--input", "in", "--output", "out", "--workers", "0"], "0 workers cannot run anything; give --work"),
        (["TEXT", "--input", "in", "--output", "out", "--threads", "0"], "threads is 0; give a whole number from 1"),
        (["TEXT", "--input", "in", "--output", "out", "--address", "x:1"], "give it with --engine ray"),
        (["TEXT", "--input", "in"], "--input takes --output FOLDER"),
        (["TEXT", "good", "--input", "in", "--output", "out"], "neither INPUT nor --png beside it"),
        (["TEXT", "good", "--output", "out"], "--output goes with --input, a Parquet file or a folder of them"),
        (["TEXT", "good", "--workers", "2"], "--workers goes with --input"),
        (["absent", "--input", "in", "--output", "out"], "absent is not a folder; give the folder that"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: list[str],
    words: str,
    command: Command,
    text_bundle: Path,
    digits_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in" / "a.parquet", text=["good"], id=[1])
    write(tmp_path / "taken" / "a.parquet", text=["good"], label=[1], input_label=[2])
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.parquet").write_text("a note")
    bundles = {"TEXT": str(text_bundle), "IMAGE": str(digits_bundle)}
    before = sorted(tmp_path.rglob("*"))
    status, out, err = command(*(bundles.get(word, word) for word in arguments))
    assert (status, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_without_pyarrow_the_extra_is_named(text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r'pip install "rekd-edge\[bulk\]"'):
        predict_files(text_bundle, tmp_path, tmp_path / "out")


def test_workers_load_nothing_of_training(text_bundle: Path, tmp_path: Path) -> None:
    """Neither the caller nor what it starts imports torch and the like: with them gone all goes on."""
    write(tmp_path / "in.parquet", text=["a delight"])
    for name in ("torch", "transformers", "datasets", "onnx", "ray"):
        (tmp_path / "gone").mkdir(exist_ok=True)
        (tmp_path / "gone" / f"{name}.py").write_text("raise ImportError('gone')")
    arguments = ["rekd-edge", "predict", text_bundle, "--input", tmp_path / "in.parquet", "--output", tmp_path / "out"]
    code = f"import sys; sys.argv = {list(map(str, arguments))!r}; from rekd_edge.cli import main; main()"
    path = os.pathsep.join([str(tmp_path / "gone"), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "out" / "in.parquet")[0]["error"] is None


def test_what_a_lost_worker_was_writing_is_removed(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in/a.parquet", text=texts(5))
    run = bulk._run

    def leaving(*arguments: Any) -> list[str]:
        errors = run(*arguments)
        (tmp_path / "out/.rekd-edge").mkdir(exist_ok=True)
        (tmp_path / "out/.rekd-edge/lost.tmp").write_bytes(b"PAR1")
        return errors

    monkeypatch.setattr(bulk, "_run", leaving)
    assert predict_files(text_bundle, tmp_path / "in", tmp_path / "out")["rows"] == 5
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.parquet"]

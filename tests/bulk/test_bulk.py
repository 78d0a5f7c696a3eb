"""Parquet in, Parquet out: every row once and in order, as the runtime alone answers it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parquet_files import close, rows, texts, write
from PIL import Image

from rekd_edge import InputError, Rationalizer
from rekd_edge.bulk import predict_files
from rekd_edge.bulk.rows import output_fields, predict_batch
from rekd_edge.engines import EngineSettings

TWO = EngineSettings(workers=2)


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

"""A call goes on where an earlier one was cut off, and takes nothing else for its own."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from parquet_files import close, results, rows, texts, write

from rekd_edge import FailureError, InputError, bulk
from rekd_edge.bulk import predict_files
from rekd_edge.bulk.ranges import PURPOSE
from rekd_edge.engines import EngineSettings
from rekd_edge.files import claim_folder

KILLED = """
import sys
from pathlib import Path
from rekd_edge.bulk import predict_files
from rekd_edge.bulk.ranges import PURPOSE
from rekd_edge.engines import EngineSettings
from rekd_edge.files import claim_folder
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
    staging = claim_folder(output / ".rekd-edge", PURPOSE)
    digests = [hashlib.sha256(name.encode()).hexdigest()[:16] for name in ("a.parquet", "old")]
    for name in (
        f"{digests[0]}.tmp",
        f"{digests[0]}-0-3.parquet",
        f"{digests[1]}-5-9.parquet",
        f"{digests[1]}-5-9.json",
    ):
        (staging / name).write_bytes(b"PAR1")
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


def test_what_a_lost_worker_was_writing_is_removed(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in/a.parquet", text=texts(5))
    run = bulk._run

    def leaving(*arguments: Any) -> list[str]:
        errors = run(*arguments)
        (tmp_path / "out/.rekd-edge" / f"{0:016x}.tmp").write_bytes(b"PAR1")
        return errors

    monkeypatch.setattr(bulk, "_run", leaving)
    assert predict_files(text_bundle, tmp_path / "in", tmp_path / "out")["rows"] == 5
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.parquet"]

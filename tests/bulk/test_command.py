"""`rekd-edge predict BUNDLE --input … --output …`: one document, one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from parquet_files import rows, write

from rekd_edge import cli

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
    assert document["rows_per_s"] == pytest.approx(2 / document["seconds"], rel=0.1, abs=0.06)  # one decimal
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
        (
            ["TEXT", "good", "--input", "in", "--output", "out"],
            "neither INPUT nor --png, --svg, --record, --abstain or --abstain-below",
        ),
        (["TEXT", "good", "--output", "out"], "--output goes with --input, a Parquet file or a folder of them"),
        (["TEXT", "good", "--workers", "2"], "--workers goes with --input"),
        (["absent", "--input", "in", "--output", "out"], "absent is not a folder (no model is in the box"),
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

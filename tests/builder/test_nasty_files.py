"""Files as people have them: each is handled, or refused in one sentence before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rekd_edge.builder import run as building
from rekd_edge.builder.facts import look_at
from rekd_edge.cli import app
from rekd_edge.data import DataSettings, load_data
from rekd_edge.errors import InputError

WORDS = ("superb", "dull", "joyful", "lifeless", "moving", "tedious")


def lines(count: int = 160, labels: tuple[str, ...] = ("neg", "pos"), before: str = "a film, number") -> list[str]:
    return [f'"{before} {i} {WORDS[i % 6]}",{labels[i % len(labels)]}' for i in range(count)]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `build` would train on; it ends there."""
    seen: dict[str, Any] = {}

    def stop(output: Path, spec: str, settings: DataSettings) -> building.Built:
        seen.update(output=output, spec=spec, settings=settings)
        return building.Built(output, [], "none", True)

    monkeypatch.setattr(building, "_make", stop)
    return seen


def call(verb: str, path: Path, output: Path) -> Any:
    method = ["--method", "re"] if verb == "train" else []
    backbone = ["--backbone", "random:bert-nano"]
    return CliRunner().invoke(
        app, [verb, *(["--data"] if method else []), str(path), *method, *backbone, "--output", str(output)]
    )


HANDLED = {
    "byte order mark": "\ufefftext,label\n" + "\n".join(lines()),
    "latin-1": ("text,label\n" + "\n".join(lines(before="un café raté, numéro"))).encode("latin-1"),
    "semicolons": "\n".join(["text;label", *(line.replace('",', '";') for line in lines())]),
    "tabs": "\n".join(["text\tlabel", *(line.replace('",', '"\t') for line in lines())]),
    "quotes and line ends": "text,label\r\n" + "\r\n".join(lines(before='she said ""no""\r\nand left')),
    "empty texts": "text,label\n" + "\n".join([*lines(), *['"",neg', '"  ",pos'] * 3]),
    "near-duplicates": "text,label\n" + "\n".join([*lines(), *lines(40, before="A FILM! Number")]),
    "contradictions": "text,label\n" + "\n".join([*lines(), *lines(40, labels=("pos", "neg"))]),
    "labels as numbers": "text,label\n" + "\n".join(lines(labels=("0", "1"))),
    "two hundred rows": "text,label\n" + "\n".join(lines(200)),
}  # fmt: skip


@pytest.mark.parametrize("name", HANDLED)
def test_it_is_handled(name: str, tmp_path: Path, begun: dict[str, Any]) -> None:
    raw = HANDLED[name]
    path = tmp_path / "mine.csv"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())

    done = call("build", path, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert begun["spec"] == str(path)
    grid = yaml.safe_load((tmp_path / "out" / "grid.yaml").read_text())
    assert grid["settings"]["data.spec"] == str(path)

    said = done.stderr
    if name == "latin-1":
        assert "is not UTF-8; it is read as cp1252" in said
        assert "café" in load_data(str(path), DataSettings()).split("train").inputs[0]
    if name == "empty texts":
        assert "6 texts hold no word" in said
    if name == "near-duplicates":
        assert "training examples repeat an earlier one" in said
        assert "stand in the training split too, so figures flatter" in said
    if name == "contradictions":
        assert "with another label" in said


REFUSED = {
    "no rows": ("text,label\n", "is empty"),
    "nothing": ("", "is empty"),
    "two rows": ("text,label\na superb film,pos\na dull film,neg\n", "too few to have some in train, validation and"),
    "one class": ("text,label\n" + "\n".join(lines(labels=("neg",))), "has the single label 'neg'"),
    "missing labels": (
        "text,label\n" + "\n".join([*lines(), "a film,", "more,"]),
        "has 2 missing values",
    ),
    "missing texts": ("text,label\n" + "\n".join([*lines(), ",neg"]), "has 1 missing values in its column 'text'"),
    "labels of several kinds": ("text,label\n" + "\n".join(lines(labels=("0", "1.5"))), "nor whole numbers, but '1.5'"),
    "an open quote": ("text,label\n" + "\n".join([*lines(), '"it never ends,neg']), "cannot be read as csv"),
    "other columns": ("opinion,verdict\n" + "\n".join(lines()), "name it with --set data.text_column="),
    "other fields in a row": ("text,label\n" + "\n".join([*lines(), "a,b,c,d"]), "cannot be read as csv"),
    "no text": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not text"),
}
OF_BUILD = {
    "few of a label": (
        "text,label\n" + "\n".join([*lines(), *[f"rare {i},rare" for i in range(9)]]),
        "Only 6 training examples have the label 'rare'",
    ),
    "labels in two spellings": (
        "text,label\n" + "\n".join(lines(400, labels=("neg", "pos", "Pos"))),
        "The labels 'Pos' and 'pos' differ by case or spaces alone; make them one",
    ),
    "no text holds a word": ("text,label\n" + '" ",neg\n"  ",pos\n' * 100, "No text holds a word"),
}


@pytest.mark.parametrize(
    ("verb", "name"),
    [*(("build", name) for name in {**REFUSED, **OF_BUILD}), *(("train", name) for name in REFUSED)],
)
def test_it_is_refused_in_one_sentence(verb: str, name: str, tmp_path: Path, begun: dict[str, Any]) -> None:
    raw, words = {**REFUSED, **OF_BUILD}[name]
    path = tmp_path / "mine.csv"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())

    done = call(verb, path, tmp_path / "out")
    assert isinstance(done.exception, InputError), done.output
    assert words in str(done.exception)
    assert "\n" not in str(done.exception)
    assert done.stdout == ""
    assert [each.name for each in tmp_path.iterdir()] == ["mine.csv"]
    assert not begun


def test_data_without_a_test_split_is_refused_before_it_is_trained_on(tmp_path: Path, begun: dict[str, Any]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\n" + "\n".join(lines()))
    done = call("build", folder, tmp_path / "out")
    assert "The data has no test split to measure on" in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_million_rows(tmp_path: Path, begun: dict[str, Any]) -> None:
    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        for i in range(1_000_000):
            file.write(json.dumps({"text": f"a {WORDS[i % 6]} film, number {i}", "label": i % 2}) + "\n")

    facts = look_at(load_data(str(path), DataSettings()))
    assert facts.rows == {"train": 640_000, "validation": 160_000, "test": 200_000}
    done = call("build", path, tmp_path / "out")
    assert done.exit_code == 0, done.output
    settings = yaml.safe_load((tmp_path / "out" / "grid.yaml").read_text())["settings"]
    assert settings["data.eval_limit"] == 1000
    assert begun["settings"].test_limit == 5000

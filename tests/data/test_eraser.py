"""`eraser:FOLDER`: documents, evidence spans in words, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rekd_edge.data import DataSettings, load_data
from rekd_edge.data.eraser import words_of
from rekd_edge.errors import InputError

TEXT = "a  dull film .\nquite a\tbad one"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    for name in ("n1.txt", "p1.txt", "p2.txt"):
        (tmp_path / "docs" / name).write_text(TEXT)
    write(tmp_path / "train.jsonl", line("n1.txt", "NEG", (1, 2), (5, 8)), line("p1.txt", "POS"))
    write(tmp_path / "val.jsonl", line("p2.txt", "POS", (0, 8)))
    return tmp_path


def line(name: str, label: str, *spans: tuple[int, int]) -> dict[str, Any]:
    evidences = [[{"docid": name, "start_token": a, "end_token": b, "text": "", "start_sentence": 0}] for a, b in spans]
    return {"annotation_id": name, "classification": label, "evidences": evidences, "query": "?", "query_type": None}


def write(path: Path, *lines: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def test_words_are_those_of_split() -> None:
    assert [TEXT[start:end] for start, end in words_of(TEXT)] == TEXT.split()
    assert words_of("") == words_of(" \n") == []


def test_documents_labels_and_evidence(folder: Path) -> None:
    data = load_data(f"eraser:{folder}", DataSettings())
    assert (data.task, data.label_names) == ("text", ["NEG", "POS"])
    assert sorted(data.splits) == ["train", "validation"]  # no split is made beside the one that is there
    train = data.split("train")
    assert train.inputs == [TEXT, TEXT]
    assert train.labels.tolist() == [0, 1]
    assert train.rationale_spans is not None
    assert [[TEXT[a:b] for a, b in spans] for spans in train.rationale_spans] == [["dull", "a\tbad one"], []]
    assert data.split("val").rationale_spans == [[(0, len(TEXT))]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (line("n1.txt", "NEG", (5, 9)), r"Line 1 of .*train.jsonl marks tokens 5 to 9 of a document of 8"),
        (line("n1.txt", "NEG", (3, 3)), "marks tokens 3 to 3"),
        (line("../../etc/passwd", "NEG", (0, 1)), "does not lie in"),
        (line("missing.txt", "NEG", (0, 1)), "missing.txt, which is missing or is not UTF-8; restore it"),
        ({"annotation_id": "n1.txt", "evidences": []}, r"Line 1 .* is no ERASER annotation: classification"),
        ({**line("n1.txt", "NEG", (0, 1)), "evidences": 3}, "is no ERASER annotation: evidences"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, changed: dict[str, Any], message: str) -> None:
    write(folder / "train.jsonl", changed)
    with pytest.raises(InputError, match=message):
        load_data(f"eraser:{folder}", DataSettings())


def test_evidence_in_several_documents_is_refused(folder: Path) -> None:
    two = line("n1.txt", "NEG", (0, 1))
    two["evidences"] += line("p1.txt", "NEG", (0, 1))["evidences"]
    write(folder / "train.jsonl", two)
    with pytest.raises(InputError, match="evidence in 2 documents"):
        load_data(f"eraser:{folder}", DataSettings())


@pytest.mark.parametrize("content", ["", "\n", "{", "[]", "\xff"])
def test_files_that_are_no_annotations(folder: Path, content: str) -> None:
    (folder / "train.jsonl").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"train\.jsonl"):
        load_data(f"eraser:{folder}", DataSettings())


def test_a_folder_without_annotations(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no ERASER data set"):
        load_data(f"eraser:{tmp_path}", DataSettings())


MOVIES = Path(__file__).parents[3] / "shared" / "data" / "eraser_movies"


@pytest.mark.skipif(not MOVIES.is_dir(), reason="needs ERASER Movies at ../shared/data/eraser_movies")
def test_movies_evidence_is_the_text_that_annotators_copied() -> None:
    data = load_data(f"eraser:{MOVIES}", DataSettings())
    examples = data.split("val")
    assert (len(data.split("train")), len(examples)) == (1600, 200)
    assert examples.rationale_spans is not None
    lines = [json.loads(each) for each in (MOVIES / "val.jsonl").read_text().splitlines()]
    for text, spans, annotated in zip(examples.inputs, examples.rationale_spans, lines, strict=True):
        wanted = [each["text"].split() for group in annotated["evidences"] for each in group]
        assert [str(text)[a:b].split() for a, b in spans] == wanted

"""A single file as data: how it is read, how it is split by itself, and what of it is refused."""

from __future__ import annotations

import codecs
import csv
import json
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from rekd_edge.data import DataSettings, DataSource, load_data
from rekd_edge.errors import InputError

ROWS = [(f"un été {'génial' if i % 2 else 'nul'}, le {i}", "pos" if i % 2 else "neg") for i in range(40)]


def delimited(delimiter: str = ",", header: tuple[str, ...] = ("text", "label"), rows: list[Any] = ROWS) -> str:
    """CSV, its fields quoted where they hold the delimiter."""
    lines = [delimiter.join(f'"{field}"' if delimiter in str(field) else str(field) for field in row) for row in rows]
    return "\n".join([delimiter.join(header), *lines]) + "\n"


def json_lines(rows: list[dict[str, Any]], **options: Any) -> str:
    return "".join(json.dumps(row, **options) + "\n" for row in rows)


PLAIN = json_lines([{"text": text, "label": label} for text, label in ROWS], ensure_ascii=False)


def load(path: Path, content: bytes | str, **settings: Any) -> DataSource:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_data(str(path), DataSettings(**settings))


def pairs(source: DataSource, split: str) -> list[tuple[str, str]]:
    examples = source.split(split)
    return [(str(text), source.label_names[i]) for text, i in zip(examples.inputs, examples.labels, strict=True)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("reviews.csv", delimited()),
        ("REVIEWS.CSV", delimited()),
        ("reviews[1]*.csv", delimited()),
        ("semicolons.csv", delimited(";")),
        ("tabs.csv", delimited("\t")),
        ("latin.csv", delimited(";").encode("latin-1")),
        ("mark.csv", codecs.BOM_UTF8 + delimited().encode()),
        ("windows.csv", delimited("\t").replace("\n", "\r\n").encode("utf-16")),
        ("reviews.jsonl", PLAIN),
        ("reviews[1]*.jsonl", PLAIN),
        ("mark.jsonl", codecs.BOM_UTF8 + PLAIN.encode()),
    ],
)
def test_a_file_is_read_as_it_is_written(name: str, content: bytes | str, tmp_path: Path) -> None:
    source = load(tmp_path / name, content)
    assert source.label_names == ["neg", "pos"]
    assert sorted(pairs(source, "all")) == sorted(ROWS)


def test_a_parquet_file_is_read_with_labels_of_a_category(tmp_path: Path) -> None:
    texts, labels = zip(*ROWS, strict=True)
    parquet.write_table(
        pa.table({"text": texts, "label": pa.array(labels).dictionary_encode()}), tmp_path / "r.parquet"
    )
    assert sorted(pairs(load_data(str(tmp_path / "r.parquet"), DataSettings()), "all")) == sorted(ROWS)


def test_a_file_is_split_in_three_by_label_and_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = load(tmp_path / "reviews.csv", delimited())
    assert {name: len(examples) for name, examples in source.splits.items()} == {
        "train": 25,
        "validation": 7,
        "test": 8,
    }
    assert Counter(label for _, label in pairs(source, "test")) == {"neg": 4, "pos": 4}
    assert set(pairs(source, "train")) | set(pairs(source, "validation")) | set(pairs(source, "test")) == set(ROWS)
    assert source.made == {"test": 0.2, "validation": 0.2}
    said = capsys.readouterr().err
    assert "reviews.csv is split by itself: train 25, validation 7, test 8 examples (data.split_seed=2026)." in said

    again, other = load(tmp_path / "reviews.csv", delimited()), load(tmp_path / "r.csv", delimited(), split_seed=1)
    assert again.fingerprint == source.fingerprint
    assert other.fingerprint != source.fingerprint
    assert len(load(tmp_path / "reviews.csv", delimited(), test_share=0.5).split("test")) == 20


def test_columns_of_a_file_have_types_by_their_use(tmp_path: Path) -> None:
    """Numbers as texts are texts; labels that are whole numbers are sorted as such."""
    rows = [(1900 + i, (2, 10)[i % 2]) for i in range(20)]
    source = load(tmp_path / "years.csv", delimited(rows=rows))
    assert source.label_names == ["2", "10"]
    assert all(text.isdigit() for text in source.split("train").inputs)
    truth = load(tmp_path / "truth.csv", delimited(rows=[(text, i % 2 == 0) for i, (text, _) in enumerate(ROWS)]))
    assert truth.label_names == ["False", "True"]


def test_an_empty_text_is_a_text(tmp_path: Path) -> None:
    source = load(tmp_path / "reviews.csv", delimited() + '"",pos\n')
    assert ("", "pos") in pairs(source, "all")


@pytest.mark.parametrize(
    "label", ['"pos"', '"pos"\n', 'p"os\n', 'pos"', '""""\n', '""""', '"""pos"', '"p""os"""', '"p\nos"\n\n']
)
def test_a_closed_quote_at_the_end_is_read(label: str, tmp_path: Path) -> None:
    rows = delimited(rows=[(text, label.strip()) for text, _ in ROWS[:20]] + ROWS[::2])
    names = load(tmp_path / "reviews.csv", f"{rows}last,{label}").label_names
    assert names == sorted([*csv.reader(StringIO(label)).__next__(), "neg"])


def test_all_is_every_split_in_order(tmp_path: Path) -> None:
    source = load(tmp_path / "reviews.csv", delimited())
    assert pairs(source, "all") == [pair for name in ("train", "validation", "test") for pair in pairs(source, name)]
    planted = load_data("builtin:planted", DataSettings(train_limit=8, eval_limit=4))
    assert len(planted.split("all")) == len(planted.split("all").rationale_spans or []) == 16
    digits = load_data("builtin:digits", DataSettings(train_limit=20, eval_limit=10))
    images = [np.asarray(image) for image in digits.split("all").inputs]
    assert np.array_equal(images[20], np.asarray(digits.split("validation").inputs[0]))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("twice.csv", delimited(header=("text", "text")), "two columns that are called 'text'; rename"),
        ("third.csv", delimited(header=("text", "label", "label"), rows=[(*r, 1) for r in ROWS]), "called 'label'"),
        ("twice.jsonl", '{"text": "a", "text": "b", "label": "x"}\n', "twice.jsonl cannot be read as json"),
        ("ragged.csv", delimited() + "a,b,c\n", r"Row #42: Expected 2 columns, got 3: a,b,c\); correct that row"),
        (
            "open.csv",
            delimited() + 'a,"pos\n',
            "open.csv has a quote that is never closed, in row 41; close or remove it",
        ),
        ("open-tail.csv", delimited() + 'a,"pos', "never closed, in row 41"),
        ("open-empty.csv", delimited() + 'a,"', "never closed, in row 41"),
        ("open-rows.csv", delimited(";") + 'a;"neg\nb;pos\n\n', "never closed, in row 41"),
        ("open-quotes.csv", delimited() + 'a,"a ""pos""\n', "never closed, in row 41"),
        ("open-mark.csv", codecs.BOM_UTF8 + (delimited() + 'é,"né\n').encode(), "never closed, in row 41"),
        ("open-16.csv", (delimited("\t") + 'é\t"né\r\n').encode("utf-16"), "never closed, in row 41"),
        ("open-16b.csv", codecs.BOM_UTF16_BE + (delimited() + 'é,"né').encode("utf-16-be"), "never closed, in row 41"),
        ("gap.csv", delimited() + "a,\n", "gap.csv has 1 missing values in its column 'label', the first in row 41"),
        ("blank.csv", delimited() + 'a,""\n', "empty label in its column 'label', in row 41"),
        ("textless.csv", delimited() + ",pos\n", "missing values in its column 'text', the first in row 41"),
        ("two.csv", delimited(rows=ROWS[:2]), "has 1 of the label 'neg', too few to have some in train, validation"),
        ("few.csv", delimited(rows=ROWS[:6]), "4 examples are too few .* for validation"),
        ("typo.csv", delimited() + "a,postive\n", "has 1 of the label 'postive'"),
        ("one.csv", delimited(rows=[(text, "x") for text, _ in ROWS]), "one.csv has the single label 'x'"),
        ("header.csv", "text,label\n", "header.csv is empty; fill or remove it"),
        ("empty.csv", "", "empty.csv is empty"),
        ("null.csv", "text,label\na\0,b\n", "null.csv is not text"),
        ("empty.jsonl", "", "empty.jsonl is empty"),
        (
            "decimal.csv",
            delimited(rows=[("a", 1), ("b", 0.5)]),
            "neither strings nor whole numbers, but '0.5' in row 2",
        ),
        ("latin.jsonl", PLAIN.encode("latin-1"), "latin.jsonl is not UTF-8, as JSON is"),
        ("lists.jsonl", json_lines([{"text": a, "label": [b]} for a, b in ROWS]), r"but \['neg'\] in row 1"),
        ("mixed.jsonl", json_lines([{"text": a, "label": (b, 1)[len(a) % 2]} for a, b in ROWS]), "label"),
        ("deep.jsonl", json_lines([{"text": {"a": a}, "label": b} for a, b in ROWS]), "is not text"),
        ("list.jsonl", "[1, 2]\n3\n", "list.jsonl cannot be read as json"),
        ("reviews.xlsx", "PK", "is none of .parquet, .csv, .jsonl; save it as one of these"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(name: str, content: bytes | str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load(tmp_path / name, content)
    assert "\n" not in str(caught.value)

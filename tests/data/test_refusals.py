"""Data that cannot be used is refused in one sentence that names the mend."""

from __future__ import annotations

import errno
from pathlib import Path

import datasets
import pytest

from rekd_edge.data import DataSettings, load_data
from rekd_edge.errors import FailureError, InputError


def load(spec: Path | str, **settings):
    return load_data(str(spec), DataSettings(**settings))


@pytest.mark.parametrize("spec", ["", "imbd", "builtin:letters", "./nowhere", "/nowhere/at/all"])
def test_unknown_data_lists_what_can_be_given(spec):
    with pytest.raises(InputError, match=r"imdb, cifar10, cifar100 or owner/name .*builtin:digits or builtin:planted"):
        load(spec)


@pytest.mark.parametrize("name", ["imdb", "cifar10", "someone/something"])
def test_unreachable_hub_is_one_sentence_that_names_the_way_out(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=f"'{name}' could not be reached .* give a local folder"):
        load(name)


def test_missing_named_column_lists_the_columns(write_rows, reviews):
    with pytest.raises(InputError, match="no column 'body', only: text, label"):
        load(write_rows("train.jsonl", reviews), text_column="body")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prose": "a", "label": "x"}, "no text or image column .* only: prose, label"),
        ({"text": "a", "mood": "x"}, "no label column .* only: text, mood"),
        ({"text": "a", "image": "b", "label": "x"}, "texts .text. and images .image."),
        ({"text": 5, "label": "x"}, "'text' of the train split is not text"),
        ({"text": "a", "label": 0.5}, "neither strings nor whole numbers"),
    ],
)
def test_unusable_columns_are_refused(write_rows, row, message):
    other = {key: ("y" if key in ("label", "mood") and value == "x" else value) for key, value in row.items()}
    with pytest.raises(InputError, match=message):
        load(write_rows("train.jsonl", [row, other] * 5))


def test_fine_labels_need_their_column(write_rows, reviews):
    with pytest.raises(InputError, match="no fine_label column, only: text, label"):
        load(write_rows("train.jsonl", reviews), fine_labels=True)


def test_column_missing_in_one_split_is_refused(write_rows, reviews):
    write_rows("train.jsonl", reviews)
    with pytest.raises(InputError, match="validation split has no column 'text', only: review, label"):
        load(write_rows("dev.jsonl", [{"review": row["text"], "label": row["label"]} for row in reviews]))


def test_labels_that_differ_between_splits_are_refused(write_rows, reviews):
    write_rows("train.jsonl", reviews)
    with pytest.raises(InputError, match="labels differ between splits: test has ugly, train has bad, good"):
        load(write_rows("test.jsonl", [*reviews, {"text": "x", "label": "ugly"}]))


def test_a_declared_label_that_train_never_shows_is_refused_elsewhere(write_rows):
    names = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    write_rows("train.parquet", [{"text": f"{i}", "label": i % 2} for i in range(10)], names)
    with pytest.raises(InputError, match="labels differ between splits: test has c, train has a, b"):
        load(write_rows("test.parquet", [{"text": "x", "label": 2}, {"text": "y", "label": 0}], names))


def test_single_class_is_refused(write_rows):
    with pytest.raises(InputError, match="single label 'good'"):
        load(write_rows("train.jsonl", [{"text": f"{i}", "label": "good"} for i in range(10)]))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_empty_split_is_refused(write_rows, reviews, suffix):
    path = write_rows("train.jsonl", reviews) / f"test.{suffix}"
    if suffix == "parquet":
        datasets.Dataset.from_dict({"text": [], "label": []}).to_parquet(str(path))
    else:
        path.write_text("text,label\n" if suffix == "csv" else "")
    with pytest.raises(InputError, match=f"test.{suffix} is empty; fill or remove it"):
        load(path.parent)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("column", ["text", "label"])
def test_missing_values_are_refused(write_rows, reviews, suffix, column):
    with pytest.raises(InputError, match=f"1 missing values in its column '{column}', the first in row 3"):
        load(write_rows(f"train.{suffix}", [*reviews[:2], {**reviews[2], column: None}, *reviews[3:]]))


def test_too_few_examples_to_split_are_refused(write_rows, reviews):
    with pytest.raises(InputError, match="3 examples are too few to set 20% of every label aside for validation"):
        load(write_rows("train.jsonl", reviews[:3]))


def test_a_split_given_twice_is_refused(write_rows, reviews):
    write_rows("val.jsonl", reviews)
    with pytest.raises(InputError, match="are both the validation split; keep one"):
        load(write_rows("dev.csv", reviews))


def test_folder_without_data_is_refused(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="holds no data"):
        load(tmp_path / "nothing")
    (tmp_path / "nothing" / "train").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl"])
def test_broken_file_is_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"{ not a table \x00\xff")
    with pytest.raises(InputError, match=f"{name} (cannot be read as .*; correct or replace it|is not text)") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_full_disk_is_a_failure_and_not_bad_input(write_rows, reviews, monkeypatch):
    def full(*args, **kwargs):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise datasets.exceptions.DatasetGenerationError("generation failed") from error

    monkeypatch.setattr(datasets, "load_dataset", full)
    with pytest.raises(FailureError, match="No space is left"):
        load(write_rows("train.jsonl", reviews))

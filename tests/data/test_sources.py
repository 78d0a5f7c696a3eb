"""Folders, tables and names on the Hub become splits of inputs and labels."""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from rekd_edge.data import DataSettings, load_data
from rekd_edge.errors import InputError

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="real data in ../shared is not present")
CLASS_LABEL = datasets.Features(
    {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
)


def load(spec: Path | str, **settings):
    return load_data(str(spec), DataSettings(**settings))


def classes(examples) -> list[int]:
    return np.bincount(examples.labels).tolist()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_folder_of_any_format_gives_the_rows_it_holds(write_rows, reviews, suffix):
    write_rows(f"train.{suffix}", reviews)
    write_rows(f"validation.{suffix}", reviews[:6])
    source = load(write_rows(f"test.{suffix}", reviews[:4]))
    assert source.task == "text"
    assert source.label_names == ["bad", "good"]
    assert list(source.splits) == ["train", "validation", "test"]
    assert source.split("train").inputs == [row["text"] for row in reviews]
    assert source.split("test").labels.tolist() == [0, 1, 0, 1]
    assert source.split("test").labels.dtype == np.int64


@pytest.mark.parametrize("name", ["val", "dev", "valid", "validation"])
def test_validation_goes_by_any_of_its_names(write_rows, reviews, name):
    write_rows("train.jsonl", reviews)
    source = load(write_rows(f"{name}.jsonl", reviews[:2]))
    assert source.split("validation").inputs == ["review 0", "review 1"]
    assert source.split(name) is source.split("val")


def test_splits_may_come_in_different_formats(write_rows, reviews):
    write_rows("train.parquet", [{**row, "label": int(row["label"] == "good")} for row in reviews], CLASS_LABEL)
    source = load(write_rows("test.csv", [{"text": "fine", "label": "positive"}, {"text": "no", "label": "negative"}]))
    assert source.label_names == ["negative", "positive"]
    assert source.split("test").labels.tolist() == [1, 0]


def test_integer_labels_are_sorted_as_numbers(write_rows):
    rows = [{"text": str(i), "label": [10, 2, 1][i % 3]} for i in range(15)]
    source = load(write_rows("train.parquet", rows))
    assert source.label_names == ["1", "2", "10"]


def test_class_label_names_keep_their_order(write_rows):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    rows = [{"text": f"{i}", "label": i % 2} for i in range(10)]
    write_rows("train.parquet", rows, features)
    source = load(write_rows("dev.parquet", rows, features))
    assert source.label_names == ["z", "a"]
    assert source.split("train").labels.tolist() == [0, 1] * 5


def test_a_label_spelled_none_is_a_label(write_rows):
    rows = [{"text": f"{i} words", "label": ["None", "hate"][i % 2]} for i in range(10)]
    assert load(write_rows("train.csv", rows)).label_names == ["None", "hate"]


def test_columns_are_found_by_convention_or_by_name(write_rows, reviews):
    rows = [{"review": row["text"], "sentiment": row["label"], "source": f"s{i % 4}"} for i, row in enumerate(reviews)]
    folder = write_rows("train.csv", rows)
    assert load(folder).label_names == ["bad", "good"]
    named = load(folder, text_column="sentiment", label_column="source")
    assert named.label_names == ["s0", "s1", "s2", "s3"]
    assert set(named.split("train").inputs) == {"bad", "good"}


def test_coarse_labels_come_before_fine_ones(write_rows):
    rows = [{"text": f"{i}", "fine_label": i % 4, "coarse_label": i % 2} for i in range(40)]
    folder = write_rows("train.parquet", rows)
    assert load(folder).label_names == ["0", "1"]
    assert load(folder, fine_labels=True).label_names == ["0", "1", "2", "3"]


def test_train_without_validation_is_split_by_share_seed_and_class(write_rows):
    rows = [{"text": f"review {i}", "label": "good" if i % 4 else "bad"} for i in range(200)]
    folder = write_rows("train.jsonl", rows)
    source = load(folder)
    train, validation = source.split("train"), source.split("validation")
    assert (classes(train), classes(validation)) == ([40, 120], [10, 30])
    assert sorted(train.inputs + validation.inputs) == sorted(row["text"] for row in rows)
    assert load(folder).split("validation").inputs == validation.inputs
    assert load(folder, split_seed=1).split("validation").inputs != validation.inputs
    assert len(load(folder, validation_share=0.5).split("validation")) == 100


def test_limits_keep_the_balance_and_the_choice(write_rows):
    rows = [{"text": f"review {i}", "label": "good" if i % 4 else "bad"} for i in range(200)]
    write_rows("train.jsonl", rows)
    folder = write_rows("test.jsonl", rows[:100])
    source = load(folder, train_limit=40, eval_limit=8)
    assert {name: classes(split) for name, split in source.splits.items()} == {
        "train": [10, 30],
        "validation": [2, 6],
        "test": [2, 6],
    }
    again = load(folder, train_limit=40, eval_limit=8)
    assert again.fingerprint == source.fingerprint
    assert again.split("train").inputs == source.split("train").inputs


def test_the_test_split_may_have_a_limit_of_its_own(write_rows):
    rows = [{"text": f"review {i}", "label": "good" if i % 4 else "bad"} for i in range(200)]
    write_rows("train.jsonl", rows)
    folder = write_rows("test.jsonl", rows[:100])
    plain, more = load(folder, eval_limit=8), load(folder, eval_limit=8, test_limit=40)
    assert classes(more.split("test")) == [10, 30]
    assert more.split("validation").inputs == plain.split("validation").inputs
    assert more.fingerprint != plain.fingerprint


def test_a_limit_above_the_size_changes_nothing(write_rows, reviews):
    folder = write_rows("train.jsonl", reviews)
    assert load(folder, train_limit=1000).fingerprint == load(folder).fingerprint


def test_fingerprint_follows_inputs_and_labels(write_rows, reviews):
    def fingerprint(rows):
        write_rows("validation.jsonl", reviews)
        return load(write_rows("train.jsonl", rows)).fingerprint

    original = fingerprint(reviews)
    other_text = fingerprint([{**reviews[0], "text": "review 0 "}, *reviews[1:]])
    other_label = fingerprint([{**reviews[0], "label": "good"}, *reviews[1:]])
    moved_border = fingerprint([{**reviews[0], "text": "review 0r"}, {**reviews[1], "text": "eview 1"}, *reviews[2:]])
    assert len({original, other_text, other_label, moved_border}) == 4
    assert fingerprint(reviews) == original


def test_missing_split_names_those_that_exist(write_rows, reviews):
    source = load(write_rows("train.jsonl", reviews))
    with pytest.raises(InputError, match="no test split; choose from: train, validation"):
        source.split("test")


def test_test_split_alone_can_be_loaded(write_rows, reviews):
    assert list(load(write_rows("test.jsonl", reviews)).splits) == ["test"]


def test_unlabelled_split_of_the_hub_is_left_out(write_rows):
    write_rows("train.parquet", [{"text": f"{i}", "label": i % 2} for i in range(10)], CLASS_LABEL)
    folder = write_rows("test.parquet", [{"text": f"{i}", "label": -1} for i in range(4)], CLASS_LABEL)
    assert list(load(folder).splits) == ["train", "validation"]


def test_hub_data_is_asked_for_by_its_name_and_other_splits_are_ignored(monkeypatch):
    def rows(labels):
        return datasets.Dataset.from_dict({"text": [str(y) for y in labels], "label": labels}, features=CLASS_LABEL)

    stored = {"imdb": {"train": rows([0, 1] * 10), "test": rows([1, 0]), "unsupervised": rows([-1] * 5)}}

    def load_dataset(name, trust_remote_code):
        assert trust_remote_code is False
        return datasets.DatasetDict(stored[name])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = load("imdb")
    assert source.label_names == ["negative", "positive"]
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 16, "validation": 4, "test": 2}


def test_image_folder_with_splits(write_images):
    for label in ("cat", "dog"):
        write_images(f"train/{label}", list(range(0, 50, 5)))
        write_images(f"test/{label}", [7, 9])
    source = load(write_images("val/dog", [8]))
    assert source.task == "image"
    assert source.label_names == ["cat", "dog"]
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 20, "validation": 1, "test": 4}
    assert source.split("val").labels.tolist() == [1]
    image = source.split("test").inputs[3]
    assert (image.size, image.mode, image.getpixel((0, 0))) == ((6, 5), "RGB", (9, 9, 9))


def test_image_folder_of_labels_alone_is_split_in_three_whatever_its_files_are_called(write_images):
    write_images("cat", list(range(10)))
    source = load(write_images("dog", list(range(10))))
    found = {name: classes(split) for name, split in source.splits.items()}
    assert found == {"train": [6, 6], "validation": [2, 2], "test": [2, 2]}


def test_images_of_a_column_stay_encoded_until_used(write_rows):
    def png(level):
        buffer = io.BytesIO()
        Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    rows = [{"img": png(i), "label": i % 2} for i in range(10)]
    rows[3]["img"] = {"bytes": b"no image", "path": None}
    source = load(write_rows("test.parquet", rows, features))
    inputs = source.split("test").inputs
    assert inputs[4].getpixel((0, 0)) == (4, 4, 4)
    assert inputs.select([8, 2])[0].getpixel((0, 0)) == (8, 8, 8)
    assert len(source.fingerprint) == 64
    with pytest.raises(InputError, match="cannot be read as an image"):
        inputs[3]


@needs_shared
def test_imdb_is_split_80_20_and_balanced():
    source = load(SHARED / "imdb", eval_limit=100)
    assert source.label_names == ["neg", "pos"]
    assert classes(source.split("train")) == [10_000, 10_000]
    assert classes(source.split("validation")) == [50, 50]


@needs_shared
@pytest.mark.parametrize(
    ("name", "settings", "labels"),
    [("cifar10", {}, 10), ("cifar100", {}, 20), ("cifar100", {"fine_labels": True}, 100)],
)
def test_cifar_has_its_labels_and_images(name, settings, labels):
    source = load(SHARED / name, train_limit=200, eval_limit=100, **settings)
    assert source.task == "image"
    assert len(source.label_names) == labels
    assert set(classes(source.split("train"))) == {200 // labels}
    assert source.split("train").inputs[0].size == (32, 32)

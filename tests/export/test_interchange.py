"""A bundle opens in Optimum and in transformers' pipelines as it is, with its own labels; masks come with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from rekd_edge.export.interchange import write_interchange_files
from rekd_edge.modeling import RationaleConfig
from rekd_edge.training.preparation import preprocessing_of_run

VECTORS = Path(__file__).parents[1] / "vectors"


def rows_of(task: str) -> list[dict[str, Any]]:
    rows = json.loads((VECTORS / f"{task}.json").read_text(encoding="utf-8"))
    return [row for row in rows if row["name"] != "surrogate"]  # which has no UTF-8 form; transformers refuses it


def bundle(name: str) -> str:
    return str(VECTORS / "bundles" / name)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_pipeline_gives_the_labels_of_the_bundle(precision: str) -> None:
    optimum = pytest.importorskip("optimum.onnxruntime", reason="needs the optimum extra")
    from transformers import pipeline

    tokenizer = AutoTokenizer.from_pretrained(bundle(f"text-{precision}"))
    model = optimum.ORTModelForSequenceClassification.from_pretrained(bundle(f"text-{precision}"))
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)

    rows = rows_of("text")
    found = classify([row["text"] for row in rows], truncation=True, batch_size=8)
    answered = "run" if precision == "fp32" else "int8"
    assert [each["label"] for each in found] == [row[answered]["label"] for row in rows]


def test_masks_come_with_custom_tasks() -> None:
    optimum = pytest.importorskip("optimum.onnxruntime", reason="needs the optimum extra")
    model = optimum.ORTModelForCustomTasks.from_pretrained(bundle("text-fp32"))
    row = rows_of("text")[0]
    ids = np.array([row["ids"]])
    found = model(input_ids=ids, attention_mask=np.ones_like(ids))
    assert found["rationale_mask"][0, 1:-1].astype(int).tolist() == row["run"]["mask"]
    assert set(found) == {"logits", "rationale_mask", "selection_margin"}


def test_an_image_pipeline_gives_the_labels_of_the_bundle() -> None:
    optimum = pytest.importorskip("optimum.onnxruntime", reason="needs the optimum extra")
    from PIL import Image
    from transformers import pipeline

    processor = AutoImageProcessor.from_pretrained(bundle("image-fp32"), use_fast=False)
    model = optimum.ORTModelForImageClassification.from_pretrained(bundle("image-fp32"))
    classify = pipeline("image-classification", model=model, image_processor=processor)

    for name in ("digit", "small-digit", "noise"):
        row = next(row for row in rows_of("image") if row["name"] == name)
        image = Image.open(VECTORS / "images" / f"{name}.png").convert("RGB")
        assert classify(image, top_k=1)[0]["label"] == row["run"]["label"]


def test_transformers_tokenizer_gives_the_ids_of_the_bundle() -> None:
    tokenizer = AutoTokenizer.from_pretrained(bundle("text-int8"))
    for row in rows_of("text"):
        assert tokenizer(row["text"], truncation=True)["input_ids"] == row["ids"], row["name"]
    padded = tokenizer(["a film", "a"], padding=True)
    assert padded["attention_mask"] == [[1, 1, 1, 1], [1, 1, 1, 0]]


@pytest.mark.parametrize("task", ["text", "image"])
def test_the_files_say_what_the_run_is(task: str, make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(task, "drop")
    config = RationaleConfig.load(run)
    write_interchange_files(tmp_path, config, preprocessing_of_run(run, config))

    found = AutoConfig.from_pretrained(tmp_path)
    assert found.model_type == ("bert" if task == "text" else "vit")
    assert list(found.id2label.values()) == config.labels
    assert found.label2id == {label: i for i, label in enumerate(config.labels)}
    assert found.hidden_size == config.predictor["hidden_size"]
    assert "/" not in (tmp_path / "config.json").read_text()  # no place of the machine that trained it
    other = "tokenizer_config.json" if task == "text" else "preprocessor_config.json"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["config.json", other])


def test_a_family_that_transformers_lacks_gets_no_files(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("text", "zero", "re", "bilstm")
    config = RationaleConfig.load(run)
    write_interchange_files(tmp_path, config, preprocessing_of_run(run, config))
    assert list(tmp_path.iterdir()) == []

"""Python's runtime gives the answers of tests/vectors, as every other runtime must.

The run's own answers and those of the int8 graph were written by tests/vectors/make.py, once, on one machine.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rekd_edge.runtime import Rationalizer
from rekd_edge.runtime.image import image_pixels, load_image

VECTORS = Path(__file__).parents[1] / "vectors"
HIDDEN = 32


def rows_of(task: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / f"{task}.json").read_text(encoding="utf-8"))


def inputs_of(task: str) -> list[Any]:
    if task == "text":
        return [row["text"] for row in rows_of(task)]
    return [VECTORS / "images" / f"{row['name']}.png" for row in rows_of(task)]


@pytest.fixture(scope="module", params=["text-fp32", "text-int8", "text-4bit", "image-fp32", "image-int8"])
def bundle(request: pytest.FixtureRequest) -> str:
    if request.param.startswith("image"):
        pytest.importorskip("PIL")
    return request.param


def test_answers_are_those_of_the_run_and_of_the_int8_graph(bundle: str) -> None:
    task, precision = bundle.split("-")
    answered = "run" if precision == "fp32" else precision
    rationalizer = Rationalizer.load(VECTORS / "bundles" / bundle, threads=1)
    band = rationalizer.manifest.fields["near_ties"]["width"]
    found = rationalizer.predict_rows(inputs_of(task), batch_size=1)

    features = 0
    for i, row in enumerate(rows_of(task)):
        expected = row[answered]
        margins = np.array(expected["margins"], np.float32)
        assert found.margins[i] == pytest.approx(margins, abs=band, rel=1e-6), row["name"]
        assert found.logits[i] == pytest.approx(expected["logits"], abs=1e-4 if precision == "fp32" else 0.05)
        assert rationalizer.manifest.labels[int(found.logits[i].argmax())] == expected["label"]

        clear = np.abs(margins) > band
        mask = np.array(expected["mask"], bool)
        assert np.array_equal(found.masks[i][clear], mask[clear]), row["name"]
        features += len(mask)

    assert features > 500


def test_predictions_are_those_of_the_rows(bundle: str) -> None:
    task, precision = bundle.split("-")
    answered = "run" if precision == "fp32" else precision
    predictions = Rationalizer.load(VECTORS / "bundles" / bundle, threads=1)(inputs_of(task))

    for row, prediction in zip(rows_of(task), predictions, strict=True):
        assert prediction.label == row[answered]["label"]
        assert np.ravel(prediction.mask).tolist() == row[answered]["mask"], row["name"]
        if task == "text":
            specials = {0, len(row["tokens"]) - 1}
            assert prediction.tokens == [token for i, token in enumerate(row["tokens"]) if i not in specials]
            assert prediction.truncated == row["truncated"]
            assert all(span["text"] == row["text"][span["start"] : span["end"]] for span in prediction.rationale)


@pytest.mark.parametrize("precision", ["fp32", "int8", "4bit"])
def test_ids_and_offsets(precision: str) -> None:
    encoded = Rationalizer.load(VECTORS / "bundles" / f"text-{precision}", threads=1).encode(inputs_of("text"))
    for row, found in zip(rows_of("text"), encoded, strict=True):
        assert found.ids == row["ids"], row["name"]
        assert [list(offset) for offset in found.offsets] == row["offsets"], row["name"]


def test_the_4_bit_bundle_looks_words_up_in_half_bytes() -> None:
    """Otherwise it would only be another int8 bundle."""
    graph = onnx.load(VECTORS / "bundles" / "text-4bit" / "model.onnx").graph
    (table,) = [tensor for tensor in graph.initializer if tensor.dims and tensor.dims[0] > 2048 and tensor.dims[1] > 2]
    assert list(table.dims) == [2428, HIDDEN // 2]
    assert table.data_type == onnx.TensorProto.INT8


def test_pixels() -> None:
    pytest.importorskip("PIL")
    settings = Rationalizer.load(VECTORS / "bundles" / "image-int8", threads=1).manifest.image
    assert settings is not None
    for row, path in zip(rows_of("image"), inputs_of("image"), strict=True):
        pixels = image_pixels(load_image(path), settings)
        assert pixels.flatten().tolist() == row["pixels"], row["name"]
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == row["pixels_sha256"]


def test_the_inputs_reach_what_breaks_runtimes() -> None:
    """Vectors that no runtime could get wrong would prove nothing."""
    texts = {row["name"]: row for row in rows_of("text")}
    assert "[SEP]" not in texts["specials"]["tokens"][1:-1]
    assert any("\ud800" <= character <= "\udfff" for character in texts["surrogate"]["text"])
    assert texts["long"]["truncated"]
    assert not texts["review"]["truncated"]
    assert texts["empty"]["run"]["mask"] == []
    assert any(end - start > len(token) for token, (start, end) in zip(
        texts["control characters"]["tokens"], texts["control characters"]["offsets"], strict=True
    ))  # fmt: skip
    fallbacks = [row["run"] for row in texts.values() if max(row["run"]["margins"], default=1.0) <= 0]
    assert any(sum(answer["mask"]) == 1 for answer in fallbacks)
    assert {row["run"]["label"] for row in texts.values()} == {"neg", "pos"}

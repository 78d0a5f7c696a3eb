"""The small validator agrees with `jsonschema`, and the JSON reader takes what RFC 8259 defines and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from rekd_edge.runtime.schema import manifest_schema, parse_json, violation

SHA = "0" * 64
TEXT = {
    "schema_version": 1,
    "seal": "manifest.sha256",
    "task": "text-classification",
    "method": "re",
    "labels": ["negative", "positive"],
    "target_ratio": 0.1,
    "text": {"max_length": 16, "special_token_ids": [2, 3], "pad_token_id": 0},
    "graph": {"inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", 3]}], "outputs": []},
    "vocabulary": None,
    "class_thresholds": [0.5, 1],
    "provenance": {"commit": None, "recipe_sha256": SHA, "teacher_sha256": [SHA], "run_sha256": {"config.json": SHA}},
    "files": {"model.onnx": {"size": 3, "sha256": SHA}, "tokenizer.json": {"size": 0, "sha256": SHA}},
}
IMAGE = {
    "schema_version": 1,
    "task": "image-classification",
    "labels": ["dark"],
    "image": {
        "height": 16,
        "width": 24,
        "patch_size": 8,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    },
    "files": {"model.onnx": {"size": 3, "sha256": SHA}},
}


def test_the_examples_keep_to_the_schema_and_the_schema_to_its_own() -> None:
    Draft202012Validator.check_schema(manifest_schema())
    for document in (TEXT, IMAGE):
        assert violation(document, manifest_schema()) is None


@settings(max_examples=300)
@given(st.data())
def test_the_validator_agrees_with_jsonschema(mutated: Callable[..., Any], data: st.DataObject) -> None:
    document = mutated(data.draw, data.draw(st.sampled_from([TEXT, IMAGE])))
    found = violation(document, manifest_schema())
    assert (found is None) == Draft202012Validator(manifest_schema()).is_valid(document), found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["same", "same"]}, "labels repeats an entry"),
        ({"labels": []}, "labels has fewer than 1"),
        ({"labels": [3]}, "labels[0] is no string"),
        ({"task": "audio"}, "task is not text-classification or image-classification"),
        ({"task": "image-classification"}, "neither a text bundle"),
        ({"text": {**TEXT["text"], "max_length": 4294967295}}, "text.max_length is above 65536"),
        ({"text": {**TEXT["text"], "max_length": True}}, "text.max_length is no integer"),
        ({"text": {**TEXT["text"], "pad_token_id": -1}}, "text.pad_token_id is below 0"),
        ({"files": {"../up": {"size": 1, "sha256": SHA}}}, "the name '../up' is not of the form"),
        ({"files": {"a": {"size": 1, "sha256": SHA + "\n"}}}, "files.a.sha256 is not of the form"),
        ({"files": {"a": {"size": 1}}}, "files.a.sha256 is missing"),
        ({"seal": "other"}, "seal is not manifest.sha256"),
    ],
)
def test_a_violation_names_its_place(change: dict[str, Any], words: str) -> None:
    found = violation({**TEXT, **change}, manifest_schema())
    assert found is not None
    assert words in found


def test_an_unknown_keyword_is_no_silent_pass() -> None:
    with pytest.raises(NotImplementedError, match="oneOf"):
        violation(3, {"oneOf": []})


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"NaN", b"[Infinity]", b"[-Infinity]", b"1e999", b'{"a": 1, "a": 2}', b"\xff", b"\xef\xbb\xbf{}",
     b"[" * 100_000, b"1" * 5000, b"{} {}", b"{'a': 1}"],
)  # fmt: skip
def test_what_is_no_plain_json_is_refused(raw: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse_json(raw)


@given(st.data())
def test_plain_json_is_read_as_it_was_written(mutated: Callable[..., Any], data: st.DataObject) -> None:
    value = mutated(data.draw, TEXT)
    raw = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    assert parse_json(raw) == json.loads(raw)

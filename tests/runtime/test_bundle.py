"""A bundle opens whole or not at all, with one sentence that says what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rekd_edge.errors import InputError
from rekd_edge.runtime.bundle import Manifest, write_manifest
from rekd_edge.runtime.rationalizer import Rationalizer


def test_a_written_manifest_lists_and_verifies_every_other_file(text_bundle: Path) -> None:
    manifest = Manifest.load(text_bundle)
    assert set(manifest.fields["files"]) == {"model.onnx", "tokenizer.json", "README.md"}
    assert manifest.fields["files"]["README.md"]["size"] == len("# a card\n")
    assert manifest.labels == ("negative", "positive")
    assert manifest.image is None
    assert manifest.text is not None
    assert manifest.text.special_token_ids == (2, 3)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "README.md"])
def test_a_truncated_file_is_refused_even_unverified(text_bundle: Path, name: str) -> None:
    path = text_bundle / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{name} has .* bytes"):
        Rationalizer.load(text_bundle, verify=False)


def test_a_changed_file_is_refused(text_bundle: Path) -> None:
    path = text_bundle / "README.md"
    path.write_bytes(path.read_bytes().swapcase())
    with pytest.raises(InputError, match="SHA-256"):
        Rationalizer.load(text_bundle)
    Rationalizer.load(text_bundle, verify=False)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_missing_file_is_refused(text_bundle: Path, name: str) -> None:
    (text_bundle / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        Rationalizer.load(text_bundle)


def test_what_is_no_bundle_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        Rationalizer.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="rekd-edge export RUN"):
        Rationalizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": "1"}', '{"schema_version": 0}', "\xff"])
def test_an_invalid_manifest_is_refused(text_bundle: Path, content: str) -> None:
    (text_bundle / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"manifest\.json"):
        Rationalizer.load(text_bundle)


def test_a_newer_schema_asks_for_an_upgrade(text_bundle: Path, edit_manifest: Callable[..., None]) -> None:
    edit_manifest(text_bundle, schema_version=2, task="something else")
    with pytest.raises(InputError, match="pip install -U"):
        Rationalizer.load(text_bundle)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "audio"},
        {"task": "image-classification"},
        {"labels": []},
        {"labels": ["same", "same"]},
        {"labels": [1, 2]},
        {"labels": None},
        {"labels": ["one", "two", "three"]},
        {"text": {"max_length": 16}},
        {"text": None},
        {"files": []},
        {"files": {}},
        {"files": {"model.onnx": 3, "tokenizer.json": 4}},
        {"files": {"../escape": {"size": 1, "sha256": ""}, "model.onnx": {}, "tokenizer.json": {}}},
    ],
)
def test_a_manifest_with_wrong_values_is_refused(
    text_bundle: Path, edit_manifest: Callable[..., None], changes: dict[str, Any]
) -> None:
    edit_manifest(text_bundle, **changes)
    with pytest.raises(InputError):
        Rationalizer.load(text_bundle)


def rewrite_manifest(bundle: Path) -> None:
    fields = json.loads((bundle / "manifest.json").read_text())
    write_manifest(bundle, {name: fields[name] for name in fields if name not in ("schema_version", "files")})


def test_an_unreadable_graph_is_refused(text_bundle: Path) -> None:
    (text_bundle / "model.onnx").write_bytes(b"no graph")
    rewrite_manifest(text_bundle)
    with pytest.raises(InputError, match="is no ONNX graph"):
        Rationalizer.load(text_bundle)


def test_a_graph_of_another_contract_is_refused(text_bundle: Path, image_bundle: Path) -> None:
    (text_bundle / "model.onnx").write_bytes((image_bundle / "model.onnx").read_bytes())
    rewrite_manifest(text_bundle)
    with pytest.raises(InputError, match="inputs and outputs"):
        Rationalizer.load(text_bundle)


def test_a_manifest_cannot_hold_what_json_cannot(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_manifest(tmp_path, {"metrics": {"loss": float("nan")}})


def test_threads_below_one_are_refused(text_bundle: Path) -> None:
    with pytest.raises(InputError, match="threads"):
        Rationalizer.load(text_bundle, threads=0)

"""Whatever a manifest says, sealed or not, a bundle opens and predicts, or is refused with one sentence of ours."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rekd_edge.errors import FailureError, InputError, RekdEdgeError
from rekd_edge.runtime.bundle import Manifest
from rekd_edge.runtime.rationalizer import Rationalizer

COPIES = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def open_and_ask(bundle: Path, raw: bytes) -> None:
    """Seal these bytes as the bundle's manifest, open it and predict; only errors of ours may come of it."""
    (bundle / "manifest.json").write_bytes(raw)
    (bundle / "manifest.sha256").write_text(f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n")
    with suppress(RekdEdgeError):
        rationalizer = Rationalizer.load(bundle, threads=1)
        inputs: list[Any] = ["a good film", "", "the " * 40]
        if rationalizer.manifest.image:
            inputs = [np.zeros((5, 7, 3), np.uint8)]
        for answer in rationalizer(inputs):
            json.dumps(answer.to_dict(), allow_nan=False)
    assert all(path.is_file() for path in bundle.iterdir())


@pytest.fixture(scope="module", params=["text", "image"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutated") / "bundle"
    return Path(shutil.copytree(request.getfixturevalue(f"pristine_{request.param}_bundle"), folder))


@COPIES
@given(st.data())
def test_a_manifest_with_other_values_opens_or_is_refused(
    bundle: Path, mutated: Callable[..., Any], request: pytest.FixtureRequest, data: st.DataObject
) -> None:
    pristine = request.getfixturevalue(f"pristine_{request.node.callspec.params['bundle']}_bundle")
    document = mutated(data.draw, json.loads((pristine / "manifest.json").read_text()))
    open_and_ask(bundle, json.dumps(document).encode())


@COPIES
@given(st.data())
def test_a_manifest_of_other_bytes_opens_or_is_refused(
    bundle: Path, request: pytest.FixtureRequest, data: st.DataObject
) -> None:
    pristine = request.getfixturevalue(f"pristine_{request.node.callspec.params['bundle']}_bundle")
    raw = bytearray((pristine / "manifest.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    open_and_ask(bundle, bytes(raw))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": {"max_length": 4294967295, "special_token_ids": [2, 3], "pad_token_id": 0}}, "max_length is above"),
        ({"text": {"max_length": 16, "special_token_ids": [2, 3], "pad_token_id": 2**70}}, "pad_token_id is above"),
        ({"text": {"max_length": 2, "special_token_ids": [2, 3], "pad_token_id": 0}}, "leaves no room"),
        ({"labels": ["x" * 1025, "y"]}, "more than 1024 characters"),
        ({"graph": [1]}, "graph is no object"),
        ({"graph": {"inputs": [], "outputs": [3]}}, r"graph\.outputs\[0\] is no object"),
        ({"files": {"model.onnx": {"size": "1", "sha256": "0" * 64}}}, "size is no integer"),
        ({"vocabulary": {}}, "vocabulary.pieces is missing"),
        ({"metrics": [0.5]}, "metrics is no object"),
    ],
)
def test_values_out_of_bounds_are_named(
    text_bundle: Path, edit_manifest: Callable[..., None], changes: dict[str, Any], words: str
) -> None:
    edit_manifest(text_bundle, **changes)
    with pytest.raises(InputError, match=words):
        Rationalizer.load(text_bundle)


@pytest.mark.parametrize("size", [0, 7])
def test_image_settings_out_of_bounds_are_named(
    image_bundle: Path, edit_manifest: Callable[..., None], size: int
) -> None:
    image = Manifest.load(image_bundle).fields["image"]
    for name, value in (("patch_size", size), ("height", 100_000), ("resample", 99), ("std", [0, 1, 1]), ("mean", [1])):
        edit_manifest(image_bundle, image={**image, name: value})
        with pytest.raises(InputError, match=rf"image\.{name}|patches of {size}"):
            Manifest.load(image_bundle)


def test_a_manifest_larger_than_any_is_not_read(text_bundle: Path) -> None:
    with (text_bundle / "manifest.json").open("r+b") as file:
        file.truncate(2**40)  # a terabyte of zeros, which takes no space
    with pytest.raises(InputError, match="more than a bundle's ever has"):
        Manifest.load(text_bundle)


def test_what_the_system_raises_is_one_sentence(text_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_permission(*_: Any) -> bytes:
        raise PermissionError(13, "Permission denied", "model.onnx")

    monkeypatch.setattr("rekd_edge.runtime.bundle.check_file", no_permission)
    with pytest.raises(FailureError, match=r"Permission denied: model\.onnx"):
        Rationalizer.load(text_bundle)

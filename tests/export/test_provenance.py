"""A bundle says what it was made from, and its graph how much it reads."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import rekd_edge.versions
from rekd_edge.errors import InputError
from rekd_edge.export import export_bundle
from rekd_edge.runtime import Rationalizer
from rekd_edge.runtime.signature import verify_bundle
from rekd_edge.versions import source_commit

TRAINING = {
    "recipe": {"method": "rekd", "data": {"spec": "/home/someone/reviews.csv"}, "seed": 3},
    "data": {"spec": "/home/someone/reviews.csv", "fingerprint": "f" * 64},
    "teacher_sha256": ["a" * 64, "b" * 64],
    "versions": {"python": "3.11", "torch": "2.13"},
}


@pytest.fixture(scope="module")
def bundle(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("provenance")
    shutil.copytree(make_run("text"), folder / "run")
    (folder / "run" / "training.json").write_text(json.dumps(TRAINING))
    export_bundle(folder / "run", folder / "bundle")
    return folder / "bundle"


def test_the_manifest_names_run_data_teachers_recipe_and_versions(bundle: Path) -> None:
    provenance = json.loads((bundle / "manifest.json").read_text())["provenance"]
    run = bundle.parent / "run"
    recipe = '{"data":{"spec":"/home/someone/reviews.csv"},"method":"rekd","seed":3}'
    assert provenance == {
        "commit": source_commit(),
        "data": {"spec": "reviews.csv", "fingerprint": "f" * 64},  # whose home it lay in is nobody's business
        "recipe_sha256": hashlib.sha256(recipe.encode()).hexdigest(),
        "teacher_sha256": ["a" * 64, "b" * 64],
        "run_sha256": {
            name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in ("config.json", "model.safetensors")
        },
        "trained_with": {"python": "3.11", "torch": "2.13"},
    }


def test_a_run_that_recorded_less_is_exported(make_run: Callable[..., Path], tmp_path: Path) -> None:
    manifest = export_bundle(make_run("image"), tmp_path / "bundle")
    provenance = manifest["provenance"]
    assert provenance["data"] == {"spec": "a-folder-that-is-gone", "fingerprint": None}
    assert (provenance["teacher_sha256"], provenance["trained_with"]) == ([], None)
    Rationalizer.load(tmp_path / "bundle")


def test_export_seals_last(bundle: Path) -> None:
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert (bundle / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"
    assert verify_bundle(bundle)["files"] == 5  # graph, tokenizer and its settings, config, card


def test_the_graph_says_how_many_tokens_it_reads(bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props}["rekd_edge.max_length"] == "32"

    other = shutil.copytree(bundle, tmp_path / "other")
    raw = (other / "manifest.json").read_bytes().replace(b'"max_length": 32', b'"max_length": 64')
    (other / "manifest.json").write_bytes(raw)
    (other / "manifest.sha256").write_text(f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n")
    with pytest.raises(InputError, match="reads 32 tokens and the manifest says 64"):
        Rationalizer.load(other)


def test_the_commit_is_that_of_the_checkout_or_the_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    package = checkout / "rekd_edge" / "versions.py"
    package.parent.mkdir(parents=True)
    package.touch()
    monkeypatch.setattr(rekd_edge.versions, "__file__", str(package))
    assert source_commit() is None  # as a wheel from an index

    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", checkout, *words], check=True)
    head = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert source_commit() == head.stdout.strip()
    package.write_text("changed")
    assert source_commit() == f"{head.stdout.strip()}-dirty"

    class Installed:
        """As pip records an installation from a repository."""

        def read_text(self, name: str) -> str:
            assert name == "direct_url.json"
            return json.dumps({"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}})

    monkeypatch.setattr(rekd_edge.versions, "distribution", lambda name: Installed())
    assert source_commit() == "c" * 40

"""Bundles to and from the Hub: the same bytes, kept for times without a connection, pinned, and checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import Hub

from rekd_edge import Rationalizer
from rekd_edge.runtime.bundle import Manifest

TEXT = "a superb film"


def test_downloaded_once_and_then_without_a_connection(
    hub: Hub, command: Callable, files: dict[str, bytes], bundle: Path, tmp_path: Path
) -> None:
    first = hub.put("me/good", {**files, "extra.bin": b"none of ours"})
    found = command("predict", "me/good", TEXT, "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == Rationalizer.load(bundle)(TEXT).to_dict()
    assert not any("extra.bin" in each for each in hub.asked)

    (kept,) = (tmp_path / "cache" / "hub" / "rekd-edge" / "me--good").iterdir()
    assert kept.name == first
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == files
    assert not any(path.is_symlink() for path in kept.iterdir())

    hub.close()
    for name in ("me/good", f"me/good@{first}"):
        for offline in (False, True):
            again = command("predict", name, TEXT, "--json", offline=offline)
            assert (again.returncode, again.stdout) == (0, found.stdout), again.stderr


def test_a_revision_stays_what_it_was(hub: Hub, command: Callable, files: dict[str, bytes]) -> None:
    first = hub.put("me/good", files)
    hub.put("me/good", {"README.md": b"something else"})
    assert command("inspect", f"me/good@{first}").returncode == 0

    gone = command("inspect", "me/good")
    assert (gone.returncode, gone.stdout) == (2, "")
    assert "me/good holds no manifest.json and is no bundle" in gone.stderr

    code = f"from rekd_edge import Rationalizer; print(Rationalizer.load('me/good@{first}')('{TEXT}').label)"
    assert command(code=code).stdout.strip() == "pos"


def test_a_changed_file_is_refused(hub: Hub, command: Callable, files: dict[str, bytes]) -> None:
    hub.put("me/bad", {**files, "tokenizer.json": files["tokenizer.json"].replace(b"[UNK]", b"[UNC]", 1)})
    found = command("predict", "me/bad", TEXT)
    assert (found.returncode, found.stdout) == (2, "")
    assert "is not the file that was exported" in found.stderr


@pytest.mark.parametrize(
    ("name", "status", "offline", "words"),
    [
        ("me/nothing", None, False, "no such repository on the Hugging Face Hub"),
        ("me/good@nothing", None, False, "me/good has no revision nothing"),
        ("me/good", None, True, "is not in the cache"),
        ("me/good", 500, False, "cannot be reached"),
        ("me/good", 401, False, "log in: hf auth login"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    hub: Hub, command: Callable, files: dict[str, bytes], name: str, status: int | None, offline: bool, words: str
) -> None:
    hub.put("me/good", files)
    hub.refuse = status
    found = command("predict", name, TEXT, offline=offline)
    assert (found.returncode, found.stdout) == (2, "")
    assert words in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_pushed_and_fetched_again(hub: Hub, command: Callable, bundle: Path, files: dict[str, bytes]) -> None:
    pushed = command("push", bundle, "me/mine", "--json")
    assert pushed.returncode == 0, pushed.stderr
    report = json.loads(pushed.stdout)
    assert report == {"repo": "me/mine", "revision": hub.main["me/mine"], "address": f"{hub.address}/me/mine"}

    there = hub.commits["me/mine"][report["revision"]]
    assert {name: raw for name, raw in there.items() if name != ".gitattributes"} == files
    assert list(hub.large.values()) == [files["model.onnx"]]  # by LFS, all else in the commit
    assert command("predict", f"me/mine@{report['revision']}", TEXT).returncode == 0


def test_metadata_that_is_given_goes_into_the_card(
    hub: Hub, command: Callable, bundle: Path, files: dict[str, bytes], tmp_path: Path
) -> None:
    from huggingface_hub import ModelCard

    options = ["--licence", "mit", "--dataset", "stanfordnlp/imdb", "--base-model", "prajjwal1/bert-mini"]
    assert command("push", bundle, "me/mine", *options).returncode == 0

    there = hub.commits["me/mine"][hub.main["me/mine"]]
    for name, raw in there.items():
        (tmp_path / name).write_bytes(raw)
    assert Manifest.load(tmp_path).sealed
    assert {name for name in files if there[name] != files[name]} == {"README.md", "manifest.json", "manifest.sha256"}

    card = ModelCard(there["README.md"].decode()).data
    assert (card.license, card.datasets, card.base_model) == ("mit", ["stanfordnlp/imdb"], "prajjwal1/bert-mini")
    assert card.pipeline_tag == "text-classification"
    assert (bundle / "README.md").read_bytes() == files["README.md"]  # the original stays


def test_what_is_not_pushed(hub: Hub, command: Callable, bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    (damaged / "model.onnx").write_bytes(b"x")
    for arguments, words in (
        ((damaged, "me/mine"), "bytes where the manifest says"),
        ((bundle, "mine"), "give owner/name"),
        ((bundle, "me/mine@main"), "give owner/name"),
    ):
        found = command("push", *arguments)
        assert (found.returncode, found.stdout) == (2, "")
        assert words in found.stderr
    assert hub.asked == []

    hub.refuse = 403
    found = command("push", bundle, "me/mine")
    assert found.returncode == 2
    assert "log in: hf auth login" in found.stderr


def test_a_signature_is_not_broken_by_a_new_card(command: Callable, bundle: Path, tmp_path: Path) -> None:
    signed = tmp_path / "signed"
    shutil.copytree(bundle, signed)
    (signed / "manifest.sig").write_text("{}")
    code = f"""
from pathlib import Path
from rekd_edge.hub.card import restate
from rekd_edge.runtime.bundle import Manifest
Manifest.load = classmethod(lambda cls, folder: Manifest.parse((folder / "manifest.json").read_bytes(), folder))
restate(Path({str(signed)!r}), Path({str(tmp_path)!r}), {{"license": "mit"}})
"""
    assert "is signed, and its signature covers the card" in command(code=code).stderr


def test_without_the_extra_a_sentence_names_it(command: Callable) -> None:
    code = """
import sys
sys.modules["huggingface_hub"] = None
from rekd_edge.errors import InputError
from rekd_edge import Rationalizer
try:
    Rationalizer.load("me/good")
except InputError as error:
    print(error)
"""
    said = command(code=code).stdout
    assert "There is no folder me/good" in said
    assert 'pip install "rekd-edge[hub]"' in said

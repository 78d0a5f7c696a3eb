"""A changed byte anywhere in a bundle is refused, and nothing outside its listed files is read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from rekd_edge.errors import InputError, UnsealedBundleWarning
from rekd_edge.runtime.bundle import Manifest, write_manifest
from rekd_edge.runtime.rationalizer import Rationalizer


def flip(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_every_changed_byte_is_refused(pristine_text_bundle: Path, text_bundle: Path) -> None:
    """Every byte of the manifest and of its seal, and every thirteenth of the files that it lists."""
    flipped = 0
    for path in sorted(text_bundle.iterdir()):
        whole = path.read_bytes()
        for place in range(0, len(whole), 1 if path.name.startswith("manifest.") else 13):
            flip(path, place, place % 8)
            with pytest.raises(InputError):
                Manifest.load(text_bundle)
            path.write_bytes(whole)
            flipped += 1
    assert flipped > 1000
    assert Manifest.load(text_bundle).fields == Manifest.load(pristine_text_bundle).fields


def test_the_manifest_is_checked_even_unverified(text_bundle: Path) -> None:
    """Labels that are swapped turn every answer round; the files they label are untouched."""
    path = text_bundle / "manifest.json"
    path.write_text(path.read_text().replace('"negative"', '"POSITIVE"'))
    for verify in (True, False):
        with pytest.raises(InputError, match=r"manifest\.json is not what manifest\.sha256 sealed"):
            Rationalizer.load(text_bundle, verify=verify)


def test_the_seal_is_the_digest_that_a_shell_prints(text_bundle: Path) -> None:
    digest = hashlib.sha256((text_bundle / "manifest.json").read_bytes()).hexdigest()
    assert (text_bundle / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=text_bundle, check=True, capture_output=True)


def test_a_sealed_bundle_without_its_seal_is_refused(text_bundle: Path) -> None:
    (text_bundle / "manifest.sha256").unlink()
    with pytest.raises(InputError, match=r"manifest\.sha256 is missing"):
        Rationalizer.load(text_bundle)


def as_last_release(bundle: Path) -> Path:
    """What rekd-edge 0.1 wrote: no seal, and no word of one."""
    (bundle / "manifest.sha256").unlink()
    path = bundle / "manifest.json"
    fields = json.loads(path.read_text())
    del fields["seal"]
    path.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n")
    return bundle


def test_a_bundle_of_the_last_release_opens_with_a_note(text_bundle: Path, pristine_text_bundle: Path) -> None:
    bundle = as_last_release(text_bundle)
    with pytest.warns(UnsealedBundleWarning, match="has no seal"):
        rationalizer = Rationalizer.load(bundle)
    assert rationalizer("a good film") == Rationalizer.load(pristine_text_bundle)("a good film")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Rationalizer.load(bundle, verify=False)  # as a worker does, whose caller has verified it
        Rationalizer.load(pristine_text_bundle)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "model.onnx", "tokenizer.json", "README.md"])
def test_no_link_is_followed(text_bundle: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    (text_bundle / name).rename(outside)
    (text_bundle / name).symlink_to(outside)
    for verify in (True, False):
        with pytest.raises(InputError, match=f"{name} is a link"):
            Rationalizer.load(text_bundle, verify=verify)


def test_the_folder_itself_may_be_a_link(text_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(text_bundle)
    assert Rationalizer.load(tmp_path / "current")("good").label == "positive"


def test_what_is_no_ordinary_file_is_not_opened(text_bundle: Path) -> None:
    for name in ("README.md", "manifest.sha256"):
        (text_bundle / name).unlink()
        os.mkfifo(text_bundle / name)  # opening it would wait for a writer, for ever
        with pytest.raises(InputError, match=f"{name} is not an ordinary file"):
            Rationalizer.load(text_bundle)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "folder/file", "..", ".", "", "manifest.json", "manifest.sig", "a\0b"]
)
def test_a_listed_name_stays_in_the_folder(
    text_bundle: Path, tmp_path: Path, edit_manifest: Callable[..., None], name: str
) -> None:
    """A size and digest that fit, so that the name alone can be wrong."""
    (tmp_path / "outside").write_bytes(b"")
    files = json.loads((text_bundle / "manifest.json").read_text())["files"]
    entry = {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    edit_manifest(text_bundle, files={**files, name: entry})
    with pytest.raises(InputError, match="invalid"):
        Manifest.load(text_bundle)


def test_what_is_not_listed_is_not_read(text_bundle: Path) -> None:
    os.mkfifo(text_bundle / "unlisted")
    (text_bundle / "config.json").write_text("{")
    assert Rationalizer.load(text_bundle)("good").label == "positive"


def test_sealing_again_changes_no_listed_file(text_bundle: Path) -> None:
    before = Manifest.load(text_bundle).fields
    fields = {name: value for name, value in before.items() if name not in ("schema_version", "files")}
    write_manifest(text_bundle, fields)
    assert Manifest.load(text_bundle).fields == before

"""Only a bundle that a trusted key signed opens under `trusted_keys`, whatever an attacker can seal."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from rekd_edge.errors import InputError
from rekd_edge.runtime.bundle import write_manifest
from rekd_edge.runtime.rationalizer import Rationalizer
from rekd_edge.runtime.signature import new_key, sign, verify_bundle


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Private keys of two makers; the public ones lie beside them."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        new_key(folder / name)
    return {name: folder / name for name in ("ours", "ours.pub", "theirs", "theirs.pub")}


@pytest.fixture
def signed(text_bundle: Path, keys: dict[str, Path]) -> Path:
    sign(text_bundle, keys["ours"])
    return text_bundle


def test_a_signed_bundle_opens_with_its_key_and_without(signed: Path, keys: dict[str, Path]) -> None:
    public = keys["ours.pub"]
    for trusted in ([public], [str(public)], [public.read_bytes()], [keys["theirs.pub"], public]):
        assert Rationalizer.load(signed, trusted_keys=trusted)("good").label == "positive"
    assert Rationalizer.load(signed)("good").label == "positive"


def test_a_changed_and_sealed_bundle_is_refused(signed: Path, keys: dict[str, Path]) -> None:
    """The attack that a seal cannot find: labels swapped in the manifest, and the seal made anew."""
    fields = json.loads((signed / "manifest.json").read_text())
    write_manifest(signed, {**fields, "labels": ["positive", "negative"]})
    assert Rationalizer.load(signed)("good").label == "negative"
    with pytest.raises(InputError, match="changed after it was signed"):
        Rationalizer.load(signed, trusted_keys=[keys["ours.pub"]])


def test_an_unsigned_bundle_is_refused(text_bundle: Path, keys: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="is not signed"):
        Rationalizer.load(text_bundle, trusted_keys=[keys["ours.pub"]])


def test_a_bundle_signed_with_another_key_is_refused(text_bundle: Path, keys: dict[str, Path]) -> None:
    sign(text_bundle, keys["theirs"])
    with pytest.raises(InputError, match="not trusted"):
        Rationalizer.load(text_bundle, trusted_keys=[keys["ours.pub"]])
    with pytest.raises(InputError, match="trusted_keys is empty"):
        Rationalizer.load(text_bundle, trusted_keys=[])


def test_a_changed_file_is_refused_under_a_signature(signed: Path, keys: dict[str, Path]) -> None:
    path = signed / "tokenizer.json"
    path.write_bytes(path.read_bytes().swapcase())
    with pytest.raises(InputError, match="SHA-256"):
        Rationalizer.load(signed, trusted_keys=[keys["ours.pub"]])
    with pytest.raises(InputError, match="leave verify on"):
        Rationalizer.load(signed, trusted_keys=[keys["ours.pub"]], verify=False)


def test_a_damaged_signature_is_refused_by_anyone(signed: Path) -> None:
    """Also on a device without cryptography: the seal covers it."""
    path = signed / "manifest.sig"
    whole = path.read_bytes()
    for damaged in (whole[:-1], b"", bytes([whole[0] ^ 1]) + whole[1:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"manifest\.sig is not what"):
            Rationalizer.load(signed)
    path.unlink()
    with pytest.raises(InputError, match=r"manifest\.sig is missing"):
        Rationalizer.load(signed)


def test_signing_seals_a_bundle_of_the_last_release(text_bundle: Path, keys: dict[str, Path]) -> None:
    (text_bundle / "manifest.sha256").unlink()
    path = text_bundle / "manifest.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "seal"}))
    with pytest.raises(InputError, match="has no seal"):
        verify_bundle(text_bundle)
    sign(text_bundle, keys["ours"])
    assert verify_bundle(text_bundle, [keys["ours.pub"]])["signature"] == "trusted"


def test_a_damaged_bundle_is_not_signed(text_bundle: Path, keys: dict[str, Path]) -> None:
    (text_bundle / "README.md").write_text("# b card\n")
    with pytest.raises(InputError, match="SHA-256"):
        sign(text_bundle, keys["ours"])
    assert not (text_bundle / "manifest.sig").exists()


def test_a_private_key_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    public = new_key(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert b"PRIVATE" not in public.read_bytes()
    with pytest.raises(InputError, match="already"):
        new_key(tmp_path / "key")
    (tmp_path / "key").unlink()
    with pytest.raises(InputError, match="already"):
        new_key(tmp_path / "key")
    assert not (tmp_path / "key").exists()
    with pytest.raises(InputError, match="does not exist"):
        new_key(tmp_path / "nowhere" / "key")


def test_what_is_no_key_is_told_so(text_bundle: Path, keys: dict[str, Path], tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    (tmp_path / "text").write_text("no key")
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"password")
    )
    (tmp_path / "locked").write_bytes(locked)
    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec").write_bytes(other.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()))
    ec_public = other.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)

    for key, words in (
        (tmp_path / "text", "no private key"),
        (tmp_path / "locked", "without a password"),
        (tmp_path / "ec", "no Ed25519 private key"),
        (keys["ours.pub"], "no private key"),
        (tmp_path / "nowhere", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(InputError, match=words):
            sign(text_bundle, key)
    for trusted, words in (
        (tmp_path / "text", "no public key"),
        (keys["ours"], "no public key"),
        (ec_public, "no Ed25519 public key"),
        (tmp_path / "nowhere", "No such file"),
    ):
        with pytest.raises(InputError, match=words):
            Rationalizer.load(text_bundle, trusted_keys=[trusted])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_verifies_the_signature(signed: Path, keys: dict[str, Path]) -> None:
    words = ["openssl", "pkeyutl", "-verify", "-rawin", "-in", "manifest.json", "-sigfile", "manifest.sig", "-pubin"]
    for name, ok in (("ours.pub", True), ("theirs.pub", False)):
        done = subprocess.run([*words, "-inkey", keys[name]], cwd=signed, capture_output=True, check=False)
        assert (done.returncode == 0) == ok, done.stderr


def test_verify_says_what_was_checked(
    text_bundle: Path, keys: dict[str, Path], edit_manifest: Callable[..., None]
) -> None:
    report = verify_bundle(text_bundle)
    assert (report["files"], report["signature"], report["signed_by"]) == (3, "none", None)
    fingerprint = sign(text_bundle, keys["ours"])
    assert verify_bundle(text_bundle)["signature"] == "not checked"
    assert verify_bundle(text_bundle, [keys["ours.pub"]])["signed_by"] == fingerprint
    edit_manifest(text_bundle, method="cls")
    with pytest.raises(InputError):
        verify_bundle(text_bundle, [keys["ours.pub"]])

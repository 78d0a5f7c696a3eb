"""Who made a bundle: an Ed25519 signature over the bytes of its manifest. Needs cryptography (the `sign` extra).

`manifest.sig` holds the 64 bytes of the signature and nothing else, and keys are PEM files as OpenSSL writes them, so
that other tools sign and verify too:

    openssl pkeyutl -verify -rawin -in manifest.json -sigfile manifest.sig -pubin -inkey key.pub
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekd_edge.errors import FailureError, InputError, UnsealedBundleWarning
from rekd_edge.files import replacing
from rekd_edge.runtime.bundle import NO_SEAL, Manifest
from rekd_edge.runtime.seal import LAYOUT, read_manifest, read_small, seal_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    KeySource = str | os.PathLike[str] | bytes

__all__ = ["check_signature", "fingerprint", "new_key", "sign", "verify_bundle"]

KEY_BYTES = 64 * 1024


def new_key(path: Path) -> Path:
    """Write a new private key, readable by its owner alone, and its public half beside it as `NAME.pub`.

    Returns:
        The path of the public key.

    Raises:
        InputError: one of the two is there already, or the folder is not.
        FailureError: a file cannot be written.
    """
    _need_cryptography()
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = path.with_name(f"{path.name}.pub")
    for each in (path, public):
        if os.path.lexists(each):
            raise InputError(f"{each} is there already; give --new-key a new file.")

    key = Ed25519PrivateKey.generate()
    _write_new(path, key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()), mode=0o600)
    _write_new(
        public, key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo), mode=0o644
    )

    return public


def sign(folder: Path, key: Path) -> str:
    """Check a bundle, sign its manifest, and seal manifest and signature together; one without a seal gets it.

    Returns:
        The fingerprint of the key.

    Raises:
        InputError: the key cannot be read, or the bundle is damaged.
        FailureError: a file cannot be read, or the signature not written.
    """
    private = _private_key(key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsealedBundleWarning)
        Manifest.load(folder)

    manifest = read_manifest(folder)
    signature = private.sign(manifest)
    for name, content in ((LAYOUT.signature, signature), (LAYOUT.seal, seal_of(manifest, signature))):
        with replacing(folder / name) as unfinished:
            unfinished.write_bytes(content)

    return fingerprint(private.public_key())


def verify_bundle(folder: Path, trusted_keys: Sequence[KeySource] | None = None) -> dict[str, Any]:
    """Check every byte of a bundle against its seal, and the seal against public keys where some are given.

    Returns:
        What was checked: `files` (how many the manifest lists), `bytes`, `signature` ("none", "not checked" or
        "trusted") and `signed_by`, the fingerprint of the trusted key.

    Raises:
        InputError: a byte was changed, the bundle has no seal, or it is not signed with one of the keys.
        FailureError: a file cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsealedBundleWarning)
        manifest = Manifest.load(folder, trusted_keys=trusted_keys)

    if not manifest.sealed:
        raise InputError(f"{NO_SEAL.format(folder)}")

    signer = None if trusted_keys is None else check_signature(folder, read_manifest(folder), trusted_keys)
    signed = (folder / LAYOUT.signature).is_file()
    files = manifest.fields["files"]

    return {
        "bundle": str(folder),
        "files": len(files),
        "bytes": sum(record["size"] for record in files.values()),
        "signature": "trusted" if signer else "not checked" if signed else "none",
        "signed_by": signer,
    }


def check_signature(folder: Path, manifest: bytes, trusted_keys: Sequence[KeySource]) -> str:
    """Hold the signature over a manifest against public keys.

    Returns:
        The fingerprint of the key that it was signed with.

    Raises:
        InputError: there is no signature, or none of the keys made it; or a key cannot be read.
    """
    _need_cryptography()
    from cryptography.exceptions import InvalidSignature

    if isinstance(trusted_keys, str | bytes | os.PathLike):
        trusted_keys = [trusted_keys]

    keys = [_public_key(source) for source in trusted_keys]
    if not keys:
        raise InputError("trusted_keys is empty, so no bundle can be trusted; give at least one public key.")

    signature = read_small(folder / LAYOUT.signature, 1024)
    if signature is None:
        raise InputError(f"{folder} is not signed, and only signed bundles are trusted; sign it with: rekd-edge sign")

    for key in keys:
        try:
            key.verify(signature, manifest)
        except InvalidSignature:
            continue
        return fingerprint(key)

    raise InputError(
        f"{folder} was changed after it was signed, or signed with a key that is not trusted; get it again from its "
        "maker, or their public key."
    )


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key's 32 bytes, in hexadecimal."""
    from cryptography.hazmat.primitives import serialization as pem

    return hashlib.sha256(key.public_bytes(pem.Encoding.Raw, pem.PublicFormat.Raw)).hexdigest()


def _private_key(path: Path) -> Ed25519PrivateKey:
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = _read_key(path, lambda raw: load_pem_private_key(raw, password=None))
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} is no Ed25519 private key; make one with: rekd-edge sign --new-key FILE")

    return key


def _public_key(source: KeySource) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = _read_key(source, load_pem_public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{_name_of(source)} is no Ed25519 public key; give the .pub file of the maker's key.")

    return key


def _read_key(source: KeySource, load: Any) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        if isinstance(source, bytes):
            raw = source
        else:
            with open(source, "rb") as file:
                raw = file.read(KEY_BYTES)
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{_name_of(source)} cannot be read ({reason}); give the path of a key.") from error

    try:
        return load(raw)
    except TypeError as error:  # as load_pem_private_key says that it needs a password
        raise InputError(f"{_name_of(source)} is encrypted; give a key without a password.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        kind = "public" if load.__name__ == "load_pem_public_key" else "private"
        raise InputError(f"{_name_of(source)} is no {kind} key in PEM form; give the path of one.") from error


def _name_of(source: KeySource) -> str:
    return "The given key" if isinstance(source, bytes) else os.fspath(source)


def _need_cryptography() -> None:
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
    except ImportError as error:
        raise InputError('Signatures need cryptography; install it with: pip install "rekd-edge[sign]".') from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist, with its permissions from the first byte on."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError as error:
        raise InputError(f"{path.parent} does not exist; give a file in a folder that does.") from error
    except OSError as error:
        raise FailureError(f"{path} could not be written ({error.strerror}).") from error

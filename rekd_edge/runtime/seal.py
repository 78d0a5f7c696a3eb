"""The files of a bundle as bytes: the seal over the manifest, and every listed file held against its entry.

`manifest.sha256` is what `sha256sum manifest.json` prints, so that a shell checks it as well: `sha256sum -c
manifest.sha256`. A signed bundle's has a second line for `manifest.sig`. Without a signature the seal finds damage; who
can change the manifest can change its seal too.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError

__all__ = ["LAYOUT", "Layout", "check_file", "check_seal", "read_manifest", "read_small", "seal_of", "sha256_of"]

MANIFEST_BYTES = 16 * 2**20
"""More than the manifest of 65,536 labels of usual length."""


@dataclass(frozen=True)
class Layout:
    """The file names of a bundle: `tokenizer` is there for text only, `signature` once it was signed."""

    manifest: str = "manifest.json"
    seal: str = "manifest.sha256"
    signature: str = "manifest.sig"
    graph: str = "model.onnx"
    tokenizer: str = "tokenizer.json"
    card: str = "README.md"

    @property
    def unlisted(self) -> frozenset[str]:
        """The files that stand for the manifest and therefore not in it."""
        return frozenset({self.manifest, self.seal, self.signature})


LAYOUT = Layout()


def seal_of(manifest: bytes, signature: bytes | None = None) -> bytes:
    """The content of `manifest.sha256`."""
    files = {LAYOUT.manifest: manifest} | ({} if signature is None else {LAYOUT.signature: signature})
    return "".join(f"{hashlib.sha256(raw).hexdigest()}  {name}\n" for name, raw in files.items()).encode()


def read_manifest(folder: Path) -> bytes:
    """The bytes of a bundle's manifest.

    Raises:
        InputError: `folder` is no bundle, or its manifest is a link or larger than any.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that `rekd-edge export` wrote.")

    path = folder / LAYOUT.manifest
    raw = read_small(path, MANIFEST_BYTES)
    if raw is None:
        raise InputError(f"{folder} holds no {path.name}; make a bundle with: rekd-edge export RUN --output BUNDLE")

    return raw


def check_seal(folder: Path, manifest: bytes) -> bool:
    """Hold a manifest, and a signature, against the seal; False if the bundle has none.

    Raises:
        InputError: a byte of the manifest, the signature or the seal differs from what was sealed.
    """
    path = folder / LAYOUT.seal
    seal = read_small(path, 1024)
    if seal is None:
        return False
    if seal == seal_of(manifest):
        return True

    signature = read_small(folder / LAYOUT.signature, 1024)
    if signature is None and seal.startswith(seal_of(manifest)):
        raise InputError(f"{folder / LAYOUT.signature} is missing, though the bundle was signed; copy it again.")

    if signature is None or seal != seal_of(manifest, signature):
        changed = folder / LAYOUT.manifest if not seal.startswith(seal_of(manifest)) else folder / LAYOUT.signature
        raise InputError(f"{changed} is not what {path.name} sealed (its SHA-256 differs); copy the bundle again.")

    return True


def check_file(folder: Path, name: str, record: Mapping[str, Any], verify: bool) -> None:
    """Hold a file against its entry in the manifest: its size always, its SHA-256 with `verify`.

    Raises:
        InputError: it is missing, cut, changed, a link, or no ordinary file.
    """
    path = folder / name
    if name in LAYOUT.unlisted or name in (".", ".."):
        raise InputError(f"{folder / LAYOUT.manifest} has an invalid entry for {name!r}; export the bundle again.")

    size = _size_of(path)
    if size is None:
        raise InputError(f"{path} is missing; copy the whole bundle again.")
    if size != record["size"]:
        raise InputError(f"{path} has {size} bytes where the manifest says {record['size']}; copy the bundle again.")
    if verify and sha256_of(path) != record["sha256"]:
        raise InputError(f"{path} is not the file that was exported (its SHA-256 differs); copy the bundle again.")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_small(path: Path, limit: int) -> bytes | None:
    """The content of an ordinary file of at most `limit` bytes, None if there is none.

    Raises:
        InputError: it is larger, a link, or cannot be read.
    """
    size = _size_of(path)
    if size is None:
        return None
    if size > limit:
        raise InputError(f"{path} has {size} bytes, more than a bundle's ever has; copy the bundle again.")

    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _size_of(path: Path) -> int | None:
    """The size of an ordinary file, None if there is none.

    Raises:
        InputError: it is a link, which may lead out of the bundle, or a folder, device or pipe.
    """
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a name that is too long, or holds what no file name holds
        raise InputError(f"{path} cannot be read ({error}); copy the bundle again.") from error

    if stat.S_ISLNK(status.st_mode):
        raise InputError(f"{path} is a link, and a bundle's files must lie in it; copy it with: cp -rL")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not an ordinary file; copy the bundle again.")

    return status.st_size

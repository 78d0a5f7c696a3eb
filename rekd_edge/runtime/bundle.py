"""The bundle on disk: its manifest, and the check that nothing in it was cut or changed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekd_edge.errors import InputError, UnsealedBundleWarning
from rekd_edge.runtime.border import at_border
from rekd_edge.runtime.image import ImageSettings
from rekd_edge.runtime.schema import manifest_schema, parse_json, violation
from rekd_edge.runtime.seal import LAYOUT, Layout, check_file, check_seal, read_manifest, seal_of, sha256_of

if TYPE_CHECKING:
    from rekd_edge.runtime.signature import KeySource

__all__ = ["LAYOUT", "SCHEMA_VERSION", "Layout", "Manifest", "TextSettings", "write_manifest"]

SCHEMA_VERSION = 1
NO_SEAL = (
    "{} was exported by an earlier version and has no seal, so a change of its manifest cannot be seen; export the run "
    "again, or seal and sign it with: rekd-edge sign"
)


@dataclass(frozen=True)
class TextSettings:
    """What the runtime must know to tokenise: lengths count positions, special tokens included."""

    max_length: int
    special_token_ids: tuple[int, ...]
    pad_token_id: int


@dataclass(frozen=True)
class Manifest:
    """A checked manifest. Exactly one of `text` and `image` is set; `fields` is the whole JSON document."""

    task: str
    labels: tuple[str, ...]
    text: TextSettings | None
    image: ImageSettings | None
    fields: Mapping[str, Any]
    class_thresholds: tuple[float, ...] = ()
    """Where `rationale_scores` are cut, one a label; empty where the graph gives none."""
    sealed: bool = True
    """Whether a seal was there to hold the manifest against; bundles of rekd-edge 0.1 have none."""

    @classmethod
    def load(cls, folder: Path, *, verify: bool = True, trusted_keys: Sequence[KeySource] | None = None) -> Manifest:
        """Read and check a bundle's manifest, and every file it lists.

        Args:
            folder: the bundle.
            verify: check the SHA-256 of the listed files too; their sizes and the manifest's seal always are.
            trusted_keys: public keys (PEM files, or their bytes), one of which must have signed the manifest.

        Raises:
            InputError: the folder or a file is missing, cut or changed, a link, or not signed with a trusted key; or
                the manifest is invalid or too new.
            FailureError: a file cannot be read.

        Warns:
            UnsealedBundleWarning: there is no seal, and the files are verified.
        """
        with at_border(f"{folder} could not be read"):
            return cls._load(folder, verify, trusted_keys)

    @classmethod
    def _load(cls, folder: Path, verify: bool, trusted_keys: Sequence[KeySource] | None) -> Manifest:
        if trusted_keys is not None and not verify:
            raise InputError("A signature covers the files by their SHA-256; leave verify on with trusted_keys.")

        raw = read_manifest(folder)
        sealed = check_seal(folder, raw)

        if trusted_keys is not None:
            from rekd_edge.runtime.signature import check_signature

            check_signature(folder, raw, trusted_keys)

        manifest = cls.parse(raw, folder / LAYOUT.manifest, sealed=sealed)
        for name, record in manifest.fields["files"].items():
            check_file(folder, name, record, verify)

        if verify and not sealed:
            warnings.warn(NO_SEAL.format(folder), UnsealedBundleWarning, stacklevel=4)

        return manifest

    @classmethod
    def parse(cls, raw: bytes, path: Path, *, sealed: bool = True) -> Manifest:
        """Read a manifest from its bytes; `path` is where they are from, for messages.

        Raises:
            InputError: it is invalid, too new, or says that it is sealed while it is not.
        """
        fields = _read_fields(raw, path)
        if not sealed and "seal" in fields:
            raise InputError(f"{path.with_name(LAYOUT.seal)} is missing; copy the whole bundle again.")

        wrong = violation(fields, manifest_schema()) or _contradiction(fields)
        if wrong is not None:
            raise InputError(f"{path} is invalid ({wrong}); export the bundle again.")

        is_text = fields["task"] == "text-classification"
        return cls(
            task=fields["task"],
            labels=tuple(fields["labels"]),
            text=_text_settings(fields["text"]) if is_text else None,
            image=None if is_text else ImageSettings.from_dict(fields["image"]),
            fields=fields,
            class_thresholds=tuple(map(float, fields["class_thresholds"])) if _gives_scores(fields) else (),
            sealed=sealed,
        )


def write_manifest(folder: Path, fields: Mapping[str, Any]) -> None:
    """Write `manifest.json` from `fields`, adding the schema version and the table of every other file in `folder`, and
    last the seal over it.

    Raises:
        ValueError: a number in `fields` is not finite, which JSON cannot hold.
    """
    files = {
        path.name: {"sha256": sha256_of(path), "size": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.name not in LAYOUT.unlisted
    }
    document = {"schema_version": SCHEMA_VERSION, "seal": LAYOUT.seal, **fields, "files": files}
    raw = (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    (folder / LAYOUT.manifest).write_bytes(raw)
    (folder / LAYOUT.seal).write_bytes(seal_of(raw))


def _read_fields(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        fields = parse_json(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); export the bundle again.") from error

    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if not isinstance(version, int) or version < 1:
        raise InputError(f"{path} states no schema_version, so it is no bundle's manifest; export the bundle again.")

    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version} and this rekd-edge reads up to {SCHEMA_VERSION}; "
            "upgrade with: pip install -U rekd-edge"
        )

    return fields


def _contradiction(fields: Mapping[str, Any]) -> str | None:
    """What a schema cannot say: fields that don't go together."""
    is_text = fields["task"] == "text-classification"
    needed = [LAYOUT.graph, LAYOUT.tokenizer] if is_text else [LAYOUT.graph]
    if missing := [name for name in needed if name not in fields["files"]]:
        return f"files does not list {missing[0]}"
    if not _gives_scores(fields):
        return None
    if len(fields.get("class_thresholds", ())) != len(fields["labels"]):
        return "class_thresholds must be as many as labels"

    return None


def _text_settings(values: Mapping[str, Any]) -> TextSettings:
    return TextSettings(
        max_length=int(values["max_length"]),
        special_token_ids=tuple(int(value) for value in values["special_token_ids"]),
        pad_token_id=int(values["pad_token_id"]),
    )


def _gives_scores(fields: Mapping[str, Any]) -> bool:
    outputs = fields.get("graph", {}).get("outputs", ())
    return any(output["name"] == "rationale_scores" for output in outputs)

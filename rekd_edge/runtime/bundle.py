"""The bundle on disk: its file names, its manifest, and the check that nothing in it was cut or changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.files import sha256_of
from rekd_edge.runtime.image import ImageSettings

__all__ = ["LAYOUT", "SCHEMA_VERSION", "Layout", "Manifest", "TextSettings", "write_manifest"]

SCHEMA_VERSION = 1
TASKS = {"text-classification": "text", "image-classification": "image"}


@dataclass(frozen=True)
class Layout:
    """The file names of a bundle; `tokenizer` is there for text only."""

    manifest: str = "manifest.json"
    graph: str = "model.onnx"
    tokenizer: str = "tokenizer.json"
    card: str = "README.md"


LAYOUT = Layout()


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

    @classmethod
    def load(cls, folder: Path, *, verify: bool = True) -> Manifest:
        """Read and check a bundle's manifest, and every file it lists: the size always, the SHA-256 with `verify`.

        Raises:
            InputError: the folder or a file is missing, cut or changed, or the manifest is invalid or too new.
        """
        fields = _read_fields(folder)
        manifest = _parse(fields, folder)
        needed = [LAYOUT.graph] + ([LAYOUT.tokenizer] if manifest.text else [])
        if missing := [name for name in needed if name not in fields["files"]]:
            raise InputError(f"{folder / LAYOUT.manifest} does not list {missing[0]}; export the bundle again.")
        for name, record in fields["files"].items():
            _check_file(folder, name, record, verify)
        return manifest


def write_manifest(folder: Path, fields: Mapping[str, Any]) -> None:
    """Write `manifest.json` from `fields`, adding the schema version and the table of every other file in `folder`.

    Raises:
        ValueError: a number in `fields` is not finite, which JSON cannot hold.
    """
    files = {
        path.name: {"sha256": sha256_of(path), "size": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.name != LAYOUT.manifest
    }
    document = {"schema_version": SCHEMA_VERSION, **fields, "files": files}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / LAYOUT.manifest).write_text(text + "\n", encoding="utf-8")


def _read_fields(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that `rekd-edge export` wrote.")
    path = folder / LAYOUT.manifest
    if not path.is_file():
        raise InputError(f"{folder} holds no {path.name}; make a bundle with: rekd-edge export RUN --output BUNDLE")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
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


def _parse(fields: dict[str, Any], folder: Path) -> Manifest:
    try:
        kind = TASKS[fields["task"]]
        settings = fields[kind]
        labels = tuple(fields["labels"])
        if not labels or len(set(labels)) != len(labels) or not all(isinstance(label, str) for label in labels):
            raise ValueError("labels must be different strings")
        if not isinstance(fields["files"], dict):
            raise TypeError("files must be a table")
        return Manifest(
            task=fields["task"],
            labels=labels,
            text=_text_settings(settings) if kind == "text" else None,
            image=ImageSettings.from_dict(settings) if kind == "image" else None,
            fields=fields,
            class_thresholds=_class_thresholds(fields, len(labels)) if _gives_scores(fields) else (),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / LAYOUT.manifest} is invalid ({error!r}); export the bundle again.") from error


def _text_settings(values: Mapping[str, Any]) -> TextSettings:
    return TextSettings(
        max_length=int(values["max_length"]),
        special_token_ids=tuple(int(value) for value in values["special_token_ids"]),
        pad_token_id=int(values["pad_token_id"]),
    )


def _gives_scores(fields: Mapping[str, Any]) -> bool:
    return any(output["name"] == "rationale_scores" for output in fields.get("graph", {}).get("outputs", ()))


def _class_thresholds(fields: Mapping[str, Any], labels: int) -> tuple[float, ...]:
    thresholds = tuple(float(value) for value in fields["class_thresholds"])
    if len(thresholds) != labels:
        raise ValueError("class_thresholds must be as many as labels")
    return thresholds


def _check_file(folder: Path, name: str, record: Any, verify: bool) -> None:
    path = folder / name
    if path.parent != folder or not isinstance(record, dict) or not {"size", "sha256"} <= record.keys():
        raise InputError(f"{folder / LAYOUT.manifest} has an invalid entry for {name!r}; export the bundle again.")
    if not path.is_file():
        raise InputError(f"{path} is missing; copy the whole bundle again.")
    if path.stat().st_size != record["size"]:
        raise InputError(
            f"{path} has {path.stat().st_size} bytes where the manifest says {record['size']}; copy the bundle again."
        )
    if verify and sha256_of(path) != record["sha256"]:
        raise InputError(f"{path} is not the file that was exported (its SHA-256 differs); copy the bundle again.")

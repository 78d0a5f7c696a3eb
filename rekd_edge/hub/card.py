"""Say more in a bundle's card: the bundle is sealed anew, because its manifest lists the card by its SHA-256."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.runtime.bundle import LAYOUT, Manifest, write_manifest

__all__ = ["restate"]

END = "\n## What the rationale means\n"
"""What a new section goes before."""


def restate(bundle: Path, folder: Path, metadata: Mapping[str, Any], section: str = "") -> None:
    """Copy a bundle, with more metadata and a section of its card.

    Args:
        bundle: what `rekd-edge export` wrote.
        folder: an empty folder.
        metadata: of the card, by the Hub's names (`license`, `datasets`, `base_model`, …).
        section: Markdown, before what the card says of rationales.

    Raises:
        InputError: the bundle is damaged, or signed: its signature covers the card.
    """
    from huggingface_hub import ModelCard

    manifest = Manifest.load(bundle)
    if (bundle / LAYOUT.signature).exists():
        raise InputError(f"{bundle} is signed, and its signature covers the card; change the card first, then sign.")

    for name in manifest.fields["files"]:
        shutil.copyfile(bundle / name, folder / name)

    place = folder / LAYOUT.card
    card = ModelCard(place.read_text(encoding="utf-8") if place.is_file() else "# Bundle of REKD Edge\n")
    given = {"library_name": "rekd-edge", "pipeline_tag": manifest.task}
    for name, value in {
        **{key: each for key, each in given.items() if not getattr(card.data, key)},
        **metadata,
    }.items():
        setattr(card.data, name, value)

    text = str(card)
    if section:
        before, mark, after = text.partition(END)
        text = f"{before.rstrip()}\n\n{section.strip()}\n{mark}{after}"
    place.write_text(text, encoding="utf-8")

    fields = {name: value for name, value in manifest.fields.items() if name not in ("schema_version", "seal", "files")}
    write_manifest(folder, fields)

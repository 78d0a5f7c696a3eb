"""Models in the box: a folder for each, as `rekd-edge export` writes it. `rekd_edge.models.add` puts one here.

This module finds a bundle by what somebody typed: a path, a model in the box, or a repository on the Hugging Face Hub.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from rekd_edge.errors import InputError
from rekd_edge.runtime.seal import LAYOUT

__all__ = ["BOX", "find_bundle", "model_names"]

BOX = Path(__file__).parent
"""Where the models are; a package's own folder, so that an installed one needs no network."""
ON_HUB = re.compile(r"(?P<repo>\w[\w.-]{0,95}/\w[\w.-]{0,95})(@(?P<revision>[\w./-]{1,255}))?")
"""`owner/name` or `owner/name@revision`."""


def model_names() -> list[str]:
    """Names of the models in the box."""
    return sorted(path.parent.name for path in BOX.glob(f"*/{LAYOUT.manifest}"))


def find_bundle(name: str | os.PathLike[str]) -> Path:
    """The folder that a name stands for: a path that is there, then a model in the box, then one on the Hub.

    Args:
        name: a path, the name of a model in the box (`sentiment`), or `owner/name` or `owner/name@revision` on the
            Hugging Face Hub, which is downloaded once and kept.

    Raises:
        InputError: there is nothing of that name, or the Hub cannot be asked.
    """
    path = Path(name)
    if os.path.lexists(path):
        return path

    said = os.fspath(name)
    if said in model_names():
        return BOX / said

    if (found := ON_HUB.fullmatch(said)) is not None:
        from rekd_edge.hub import download

        return download(found["repo"], found["revision"])

    if len(path.parts) > 1 or path.is_absolute():
        return path  # whoever opens it says what is wrong with it

    there = f"models in the box are: {', '.join(model_names())}" if model_names() else "no model is in the box"
    raise InputError(
        f"{said} is not a folder ({there}); give the folder that `rekd-edge export` wrote, a model's name, or "
        "owner/name on the Hugging Face Hub."
    )

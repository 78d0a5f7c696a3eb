"""Download a bundle, once: the Hub's cache as `huggingface_hub` keeps it, and a folder of real files beside it."""

from __future__ import annotations

import glob
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from rekd_edge.errors import InputError
from rekd_edge.files import staged_folder
from rekd_edge.hub.client import client, hub_failures
from rekd_edge.runtime.bundle import LAYOUT, Manifest

__all__ = ["download"]

BUNDLES = "rekd-edge"
"""Folder in the Hub's cache for bundles: the cache itself holds links, and a bundle's files must lie in it."""


def download(repo: str, revision: str | None = None) -> Path:
    """A bundle's folder on this machine; the files that its manifest lists, and nothing else of the repository.

    What is in the cache is used without a connection. The bundle is checked like any other when it is opened: its seal,
    and the SHA-256 of every file.

    Args:
        repo: `owner/name`.
        revision: a commit, a tag or a branch; `main` if not given.

    Raises:
        InputError: there is no such repository or revision, it holds no bundle, or the Hub cannot be reached and the
            cache does not hold it.
    """
    hub = client(repo)
    with hub_failures(repo, revision):
        if (
            revision is not None
            and re.fullmatch(r"[0-9a-f]{40}", revision)
            and (kept := _place(hub, repo, revision)).is_dir()
        ):
            return kept

        first = [LAYOUT.manifest, LAYOUT.seal, LAYOUT.signature]
        snapshot = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=first))
        commit = snapshot.name  # so that what follows is of the same commit

        folder = _place(hub, repo, commit)
        if folder.is_dir():
            return folder

        names = _listed(snapshot, repo)
        patterns = [*first, *(glob.escape(name) for name in names)]
        snapshot = Path(hub.snapshot_download(repo, revision=commit, allow_patterns=patterns))

        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(_TakenError), staged_folder(folder) as staging:
            if folder.is_dir():  # another process was faster
                raise _TakenError
            for name in [*first, *names]:
                _take(snapshot / name, staging / name)

        return folder


def _place(hub: ModuleType, repo: str, commit: str) -> Path:
    return Path(hub.constants.HF_HUB_CACHE) / BUNDLES / repo.replace("/", "--") / commit


class _TakenError(Exception):
    """The folder is there already."""


def _listed(snapshot: Path, repo: str) -> list[str]:
    """Names of the files that a downloaded manifest lists.

    Raises:
        InputError: there is no manifest, or it is none of a bundle.
    """
    path = snapshot / LAYOUT.manifest
    if not path.is_file():
        raise InputError(f"{repo} holds no {LAYOUT.manifest} and is no bundle of rekd-edge; name another repository.")

    manifest = Manifest.parse(path.read_bytes(), path)
    return [name for name in manifest.fields["files"] if Path(name).name == name and name not in LAYOUT.unlisted]


def _take(cached: Path, place: Path) -> None:
    """A real file in place of the cache's link; the same blocks of the disk where that can be."""
    blob = cached.resolve()
    if not blob.is_file():
        return  # whoever opens the bundle says so

    try:
        os.link(blob, place)
    except OSError:
        shutil.copyfile(blob, place)

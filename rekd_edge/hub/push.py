"""Upload a bundle, with a card whose metadata the Hub reads."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rekd_edge.errors import InputError
from rekd_edge.hub.card import restate
from rekd_edge.hub.client import client, hub_failures
from rekd_edge.models import ON_HUB
from rekd_edge.runtime.bundle import LAYOUT, Manifest

__all__ = ["Pushed", "push"]


@dataclass(frozen=True)
class Pushed:
    """Where a bundle is now."""

    repo: str
    revision: str
    """The commit: `owner/name@commit` stays what it is."""
    address: str


def push(
    bundle: Path,
    repo: str,
    *,
    private: bool = False,
    licence: str | None = None,
    datasets: Sequence[str] = (),
    base_model: str | None = None,
) -> Pushed:
    """Upload a bundle to the Hugging Face Hub; the repository is made where there is none.

    Args:
        bundle: a folder that `rekd-edge export` wrote.
        repo: `owner/name`.
        private: make a new repository private.
        licence: of the model, as the Hub names it (`apache-2.0`); it goes into the card, and the bundle is sealed anew.
        datasets: what it was trained on, by their names on the Hub; likewise.
        base_model: its backbone, by its name on the Hub; likewise.

    Returns:
        The repository, the commit and its address.

    Raises:
        InputError: the bundle is damaged, it is signed and the card would change, or the Hub refuses.
    """
    name = ON_HUB.fullmatch(repo)
    if name is None or name["revision"] is not None:
        raise InputError(f"{repo!r} is no repository; give owner/name.")

    hub = client(repo)
    manifest = Manifest.load(bundle)
    stated = {"license": licence, "datasets": list(datasets), "base_model": base_model}
    stated = {key: value for key, value in stated.items() if value}

    with tempfile.TemporaryDirectory() if stated else nullcontext() as staging:
        folder = bundle
        if staging is not None:
            folder = Path(staging) / "bundle"
            folder.mkdir()
            restate(bundle, folder, stated)
            manifest = Manifest.load(folder)

        with hub_failures(repo):
            interface = hub.HfApi(library_name="rekd-edge")
            interface.create_repo(repo, private=private, exist_ok=True)
            files = [*manifest.fields["files"], LAYOUT.manifest, LAYOUT.seal, LAYOUT.signature]
            commit = interface.upload_folder(
                repo_id=repo, folder_path=folder, allow_patterns=files, commit_message="Upload a REKD Edge bundle"
            )

    return Pushed(repo, commit.oid, f"{hub.constants.ENDPOINT}/{repo}")

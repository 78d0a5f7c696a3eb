"""`rekd-edge push`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import JsonFlag
from rekd_edge.cli.printing import print_json, say_line, say_next


@app.command()
def push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that export wrote.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    licence: Annotated[str | None, typer.Option(metavar="ID", help="The model's, as the Hub names it.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(metavar="NAME", help="What it was trained on.")] = None,
    base_model: Annotated[str | None, typer.Option(metavar="NAME", help="Its backbone.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Upload a bundle to the Hugging Face Hub, with the metadata of its card."""
    from rekd_edge.hub import push as push_bundle

    found = push_bundle(bundle, repo, private=private, licence=licence, datasets=dataset or [], base_model=base_model)

    if as_json:
        print_json(asdict(found))
    else:
        say_line(f"{found.address} holds the bundle, at {found.revision}")
        say_next(f"rekd-edge predict {found.repo}@{found.revision} INPUT")

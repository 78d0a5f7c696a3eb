"""`rekd-edge build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import SPEC_HELP, JsonFlag, Settings, parse_settings
from rekd_edge.cli.printing import print_built, print_json
from rekd_edge.errors import InputError


@app.command()
def build(
    data: Annotated[str, typer.Argument(metavar="DATA", help=SPEC_HELP)],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="For everything; an earlier call's goes on.")],
    backbone: Annotated[str | None, typer.Option(metavar="NAME_OR_PATH", help="A pretrained encoder.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="About a quarter of an hour rather than two hours.")] = False,
    hours: Annotated[float | None, typer.Option(min=0.01, max=8760, help="How long it may take, about.")] = None,
    settings: Settings = None,
    as_json: JsonFlag = False,
) -> None:
    """Make an explainable classifier of your own data: train, distil, export, measure, and show."""
    from rekd_edge.builder import build as build_from
    from rekd_edge.process import goes_on

    given = parse_settings(settings)
    other = next((key for key in given if not key.startswith("data.")), None)
    if other is not None:
        raise InputError(f"build chooses {other} by the data; change the grid it writes, or use train.")

    with goes_on("the same command"):
        built = build_from(
            data,
            output,
            backbone=backbone,
            quick=quick,
            hours=hours,
            settings={key.removeprefix("data."): value for key, value in given.items()},
        )

    if as_json:
        print_json(
            {"rows": built.rows, "verdict": built.verdict, "learnt": built.learnt, "bundle": str(output / "bundle")}
        )
    else:
        print_built(built)

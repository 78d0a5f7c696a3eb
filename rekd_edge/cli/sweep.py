"""`rekd-edge sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import Engine, JsonFlag, Settings, parse_settings
from rekd_edge.cli.printing import print_json, say_line, show_tables
from rekd_edge.engines import EngineSettings
from rekd_edge.errors import FailureError, InputError
from rekd_edge.process import goes_on
from rekd_edge.terminal import printable


@app.command()
def sweep(
    grid: Annotated[
        str | None, typer.Argument(metavar="GRID", help="A YAML file, or the name of a shipped grid.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For runs and table; an earlier sweep's goes on.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="Processes of this machine, or a Ray cluster.")] = Engine.LOCAL,
    workers: Annotated[int | None, typer.Option(min=1, help="Runs at a time.")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; by default Ray starts here.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="Share of a GPU for each run.")] = None,
    settings: Settings = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds instead of the grid's.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try runs again that failed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and train nothing.")] = False,
    list_grids: Annotated[bool, typer.Option("--list", help="List the shipped grids.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train methods, sizes, settings and seeds of a grid, and write their means beside the published figures."""
    from rekd_edge.sweep.grid import load_grid, shipped_grids
    from rekd_edge.sweep.plan import expand

    if list_grids:
        grids = [load_grid(name) for name in shipped_grids()]
        for each in grids:
            say_line(f"{each.name:<20} {len(expand(each)):>5} runs  {each.title}")
        return

    if grid is None:
        raise InputError("Name a grid, a YAML file or one that --list shows.")
    if address is not None and engine is not Engine.RAY:
        raise InputError("--address is that of a Ray cluster; add --engine ray.")

    overrides = parse_settings(settings)
    chosen = load_grid(grid, overrides, seeds)

    from rekd_edge.sweep.run import command_of, describe, run_sweep

    if dry_run:
        for line in describe(chosen):
            print(printable(line))
        return

    if output is None:
        raise InputError("A sweep needs a folder for its runs; give --output.")

    place = EngineSettings(engine.value, workers, address)
    with goes_on("the same command"):
        document = run_sweep(chosen, output, place, retry, gpus, command_of(grid, overrides, seeds))

    if as_json:
        print_json(document)
    else:
        show_tables(document, output)

    if failed := document["failed"]:
        names = ", ".join(each["run"] for each in failed[:3]) + (", …" if len(failed) > 3 else "")
        raise FailureError(
            f"{len(failed)} of {len(expand(chosen))} runs failed ({names}); their error.json in {output} says why, "
            "and --retry tries them again."
        )

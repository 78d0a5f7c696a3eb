"""`rekd-edge report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import SPEC_HELP, Settings, data_settings
from rekd_edge.cli.printing import say_line


@app.command()
def report(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN_OR_BUNDLE...", help="What train or export wrote.")],
    data: Annotated[str, typer.Option(metavar="SPEC", help=SPEC_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="Where the page goes.")],
    split: Annotated[str, typer.Option(help="Which split; 'all' is every one.")] = "test",
    limit: Annotated[int, typer.Option(min=1, help="At most so many examples.")] = 500,
    examples: Annotated[int, typer.Option(min=0, help="Examples in the gallery of each system.")] = 40,
    settings: Settings = None,
) -> None:
    """Write one page with figures, curves, an audit and a gallery of rationales."""
    from rekd_edge.report import write_report

    for file in write_report(paths, data, output, data_settings(settings), split, limit, examples):
        say_line(str(file))

"""`rekd-edge demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import JsonFlag
from rekd_edge.cli.printing import print_json


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="A new folder for runs and bundles.")] = Path("rekd-edge-demo"),
    as_json: JsonFlag = False,
) -> None:
    """The main job on built-in data: teacher, student, distilled student, int8 bundle, predictions, one table."""
    from rekd_edge.demo import print_demo, run_demo

    report = run_demo(output)

    if as_json:
        print_json(report)
    else:
        print_demo(report)

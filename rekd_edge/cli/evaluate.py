"""`rekd-edge evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import SPEC_HELP, JsonFlag, MaskKind, Settings, data_settings
from rekd_edge.cli.printing import print_figures, print_json


@app.command()
def evaluate(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="What train or export wrote.")],
    data: Annotated[str, typer.Option(metavar="SPEC", help=SPEC_HELP)],
    split: Annotated[str, typer.Option(help="Which split; 'all' is every one.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many examples.")] = None,
    masks: Annotated[
        MaskKind, typer.Option(help="Of a run: as on the device, or sampled as in training.")
    ] = MaskKind.DETERMINISTIC,
    windows: Annotated[bool, typer.Option("--windows", help="Read long texts whole, in overlapping windows.")] = False,
    faithful: Annotated[
        bool, typer.Option("--faithfulness", help="Sufficiency and comprehensiveness too (twelve more passes).")
    ] = False,
    settings: Settings = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure accuracy and rationale ratio on a split."""
    from rekd_edge.evaluate import evaluate as evaluate_path

    report = evaluate_path(
        path, data, data_settings(settings), split, limit, masks.value, windows=windows, faithful=faithful
    )

    if as_json:
        print_json(report)
    else:
        print_figures(report)

"""`rekd-edge evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import SPEC_HELP, JsonFlag, MaskKind, Settings, data_settings
from rekd_edge.cli.printing import print_figures, print_json
from rekd_edge.errors import InputError


@app.command()
def evaluate(
    data: Annotated[str, typer.Option(metavar="SPEC", help=SPEC_HELP)],
    path: Annotated[Path | None, typer.Argument(metavar="RUN_OR_BUNDLE", help="What train or export wrote.")] = None,
    scores: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another system's scores of words (.jsonl) in place of it.")
    ] = None,
    ratio: Annotated[float | None, typer.Option(help="With --scores: the share of the words that is selected.")] = None,
    split: Annotated[str, typer.Option(help="Which split; 'all' is every one.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many examples.")] = None,
    masks: Annotated[
        MaskKind, typer.Option(help="Of a run: as on the device, or sampled as in training.")
    ] = MaskKind.DETERMINISTIC,
    windows: Annotated[bool, typer.Option("--windows", help="Read long texts whole, in overlapping windows.")] = False,
    faithful: Annotated[
        bool, typer.Option("--faithfulness", help="Sufficiency and comprehensiveness too (twelve more passes).")
    ] = False,
    stable: Annotated[
        bool, typer.Option("--stability", help="How much of a rationale stays under typos, other case and whitespace.")
    ] = False,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN_OR_BUNDLE", help="Compare rationales with its: another seed, or int8. Repeatable."),
    ] = None,
    settings: Settings = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure accuracy and rationale ratio on a split."""
    if (path is None) == (scores is None):
        raise InputError("Give a run or a bundle, or --scores FILE: one of the two.")

    if scores is not None:
        if limit is not None or windows or faithful or stable or against or masks is not MaskKind.DETERMINISTIC:
            raise InputError("--scores takes --ratio and --split alone; there is no model to ask.")

        from rekd_edge.scores import evaluate_scores

        report = evaluate_scores(scores, data, data_settings(settings), split, ratio)
    else:
        if ratio is not None:
            raise InputError("--ratio goes with --scores; a model selects by itself.")

        from rekd_edge.evaluate import evaluate as evaluate_path

        assert path is not None
        report = evaluate_path(
            path,
            data,
            data_settings(settings),
            split,
            limit,
            masks.value,
            windows=windows,
            faithful=faithful,
            stable=stable,
            against=against or (),
        )

    if as_json:
        print_json(report)
    else:
        print_figures(report)

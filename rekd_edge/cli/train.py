"""`rekd-edge train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import METHOD_HELP, SPEC_HELP, JsonFlag, Method, Settings, parse_settings, with_flags
from rekd_edge.cli.printing import print_figures, print_json, say_next
from rekd_edge.process import goes_on


@app.command()
def train(
    output: Annotated[Path, typer.Option(metavar="RUN", help="A new folder for the run.")],
    method: Annotated[Method | None, typer.Option(help=METHOD_HELP)] = None,
    data: Annotated[str | None, typer.Option(metavar="SPEC", help=SPEC_HELP)] = None,
    backbone: Annotated[str | None, typer.Option(help="Hub name, folder, random:NAME, or FAMILY: and one.")] = None,
    layers: Annotated[
        int | None, typer.Option(help="Keep the predictor's first K layers (plmr: the whole encoder's).")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(metavar="FAMILY", help="Family of the generator: local, bilstm, cnn or resnet.")
    ] = None,
    generator_layers: Annotated[int | None, typer.Option(help="Keep the generator's first K layers.")] = None,
    teacher: Annotated[
        list[str] | None, typer.Option(metavar="RUN", help="The run to distil from; again for several, averaged.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="A YAML recipe, or a shipped one's name.")
    ] = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and noise.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in RUN.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a classifier, a rationalist, or a student of one."""
    from rekd_edge.training.configuration import load_config

    flags: dict[str, Any] = {
        "method": method.value if method else None,
        "data.spec": data,
        "backbone": backbone,
        "layers": layers,
        "generator": generator,
        "generator_layers": generator_layers,
        "teacher": ",".join(teacher) if teacher else None,
        "seed": seed,
    }
    recipe = load_config(config, with_flags(parse_settings(settings), flags), strict=True)

    from rekd_edge.progress import SPEAKS, say
    from rekd_edge.training.defaults import choose
    from rekd_edge.training.display import TrainingDisplay
    from rekd_edge.training.processes import leave
    from rekd_edge.training.run import train as train_run
    from rekd_edge.training.verdict import verdict

    chosen = None
    if config is None and recipe.spec and recipe.backbone:
        recipe, chosen = choose(recipe, output if resume else None)
        for sentence in chosen.why:
            say(f"chosen: {sentence}")

    with goes_on("the same command with --resume"):
        metrics = train_run(recipe, output, resume, lambda stage: [TrainingDisplay(stage)], chosen)

    leave()
    if not SPEAKS:
        return

    found = verdict(metrics, recipe.method)
    if as_json:
        print_json(metrics)
    else:
        print_figures(metrics)

    if not found.learnt:
        say(found.sentence)
    if as_json:
        return

    say_next(f"rekd-edge export {output} --output {output}-int8 --precision int8")

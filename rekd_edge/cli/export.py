"""`rekd-edge export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import PRECISION_HELP, Isa, JsonFlag, Precision, Settings, Target, data_settings
from rekd_edge.cli.printing import print_json, print_manifest, say_next


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    output: Annotated[Path, typer.Option(metavar="BUNDLE", help="A new folder for the bundle.")],
    precision: Annotated[Precision, typer.Option(help=PRECISION_HELP)] = Precision["FP32"],
    target: Annotated[Target, typer.Option(help="Where it will run, for the checks.")] = Target.CPU,
    calibration_data: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Data to calibrate and verify on.")
    ] = None,
    isa: Annotated[Isa, typer.Option(help="Recorded; int8 weights are right on all.")] = Isa.AUTO,
    force: Annotated[bool, typer.Option("--force", help="Write the bundle even if its check fails.")] = False,
    trim: Annotated[
        bool, typer.Option("--trim-vocabulary", help="Leave out word pieces that no training text holds.")
    ] = False,
    coverage: Annotated[
        float | None,
        typer.Option(help="How often the true label is among the possible ones, from rows set apart; 0.9 by default."),
    ] = None,
    settings: Settings = None,
    as_json: JsonFlag = False,
) -> None:
    """Turn a run into one verified ONNX graph with everything a device needs."""
    from rekd_edge.export import export_bundle

    manifest = export_bundle(
        run,
        output,
        precision=precision.value,
        target=target.value,
        isa=isa.value,
        calibration_data=calibration_data,
        data_settings=data_settings(settings),
        force=force,
        trim=trim,
        coverage=coverage,
    )

    if as_json:
        print_json(manifest)
        return

    checks = ("precision", "verified", "vocabulary", "parity", "quantization", "invariance", "conformal")
    print_manifest({name: manifest[name] for name in checks if manifest.get(name) is not None})
    say_next(f"rekd-edge predict {output} …", f"rekd-edge bench {output}")

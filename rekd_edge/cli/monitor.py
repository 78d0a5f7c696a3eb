"""`rekd-edge monitor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import JsonFlag
from rekd_edge.cli.printing import print_changes, print_json
from rekd_edge.errors import InputError


@app.command()
def monitor(
    records: Annotated[Path, typer.Argument(metavar="RECORDS", help="What predict --record wrote.")],
    bundle: Annotated[Path, typer.Option(metavar="BUNDLE", help="The bundle that decided.")],
    as_json: JsonFlag = False,
) -> None:
    """Compare recorded decisions with those on the validation data: has something moved?"""
    from rekd_edge.models import find_bundle
    from rekd_edge.records.monitor import compare
    from rekd_edge.records.record import records_of
    from rekd_edge.runtime.bundle import Manifest

    bundle = find_bundle(bundle)
    reference = Manifest.load(bundle).fields.get("reference")
    if reference is None:
        raise InputError(f"{bundle} says nothing of its validation data; export the run again with its data at hand.")

    changes = compare(reference, list(records_of(records, bundle)))
    if as_json:
        print_json({"changes": [asdict(change) for change in changes]})
    else:
        print_changes(changes)

"""`rekd-edge verify-record`."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import JsonFlag, TrustedKeys
from rekd_edge.cli.printing import print_figures, print_json, say_line
from rekd_edge.errors import FailureError, InputError


@app.command("verify-record")
def verify_record(
    records: Annotated[Path, typer.Argument(metavar="FILE", help="What predict --record wrote.")],
    bundle: Annotated[Path, typer.Option(metavar="BUNDLE", help="The bundle that decided.")],
    texts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The texts, one a line, or a .csv, .jsonl or .parquet file.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Their column; found by its name if not given.")] = None,
    image: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="An image file; may be given often.")] = None,
    trusted_key: TrustedKeys = None,
    as_json: JsonFlag = False,
) -> None:
    """Check that no record was changed, and that the bundle still decides as recorded."""
    from rekd_edge.models import find_bundle
    from rekd_edge.records import verify_records
    from rekd_edge.records.replay import texts_of
    from rekd_edge.runtime import Rationalizer

    if text_column is not None and texts is None:
        raise InputError("--text-column is a column of --texts FILE; give that too.")

    bundle = find_bundle(bundle)
    rationalizer = Rationalizer.load(bundle, trusted_keys=trusted_key)
    inputs = chain([] if texts is None else texts_of(texts, text_column), image or [])
    found = verify_records(records, rationalizer, bundle, inputs)

    if as_json:
        print_json(asdict(found) | {"holds": found.holds})
    else:
        print_figures({name: value for name, value in asdict(found).items() if name != "differing"})
        if found.not_replayed:
            say_line("Records whose inputs are not at hand were checked against their own SHA-256 alone; see --texts.")

    if not found.holds:
        lines = ", ".join(map(str, found.differing[:5]))
        raise FailureError(f"{len(found.differing)} decisions could not be repeated, on the lines {lines}.")

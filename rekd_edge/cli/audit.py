"""`rekd-edge audit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import SPEC_HELP, JsonFlag, Settings, data_settings
from rekd_edge.cli.printing import print_findings, print_json


@app.command()
def audit(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="What train or export wrote.")],
    data: Annotated[str, typer.Option(metavar="SPEC", help=SPEC_HELP)],
    split: Annotated[str, typer.Option(help="Which split; 'all' is every one.")] = "test",
    limit: Annotated[int, typer.Option(min=50, help="At most so many examples.")] = 1000,
    settings: Settings = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask a sceptic's questions: does the rationale decide, and by what it says?"""
    from rekd_edge.audit import audit as audit_path

    findings = audit_path(path, data, data_settings(settings), split, limit)

    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        print_findings(findings)

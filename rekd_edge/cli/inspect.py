"""`rekd-edge inspect`."""

from __future__ import annotations

from rekd_edge.cli.application import app
from rekd_edge.cli.options import BundlePath, JsonFlag
from rekd_edge.cli.printing import print_json, print_manifest


@app.command()
def inspect(bundle: BundlePath, as_json: JsonFlag = False) -> None:
    """Show what a bundle is and what was checked, after checking its seal, every file's SHA-256, and its graph."""
    from rekd_edge.runtime import Rationalizer

    rationalizer = Rationalizer.load(bundle, threads=1)
    rationalizer.check_longest()

    manifest = dict(rationalizer.manifest.fields)

    if as_json:
        print_json(manifest)
    else:
        print_manifest(manifest)

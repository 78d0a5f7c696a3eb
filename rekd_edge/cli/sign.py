"""`rekd-edge sign` and `rekd-edge verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import BundlePath, JsonFlag, TrustedKeys
from rekd_edge.cli.printing import print_figures, print_json, say_line, say_next
from rekd_edge.errors import InputError


@app.command()
def sign(
    bundle: Annotated[Path | None, typer.Argument(metavar="BUNDLE", help="A folder that export wrote.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="An Ed25519 private key in PEM form.")] = None,
    new_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a new private key, and FILE.pub beside it.")
    ] = None,
) -> None:
    """Sign a bundle, so that `verify --trusted-key` finds any change by someone else; or make a pair of keys."""
    from rekd_edge.runtime import signature

    if new_key is not None:
        if bundle is not None or key is not None:
            raise InputError("--new-key makes keys and signs nothing; give it alone.")

        public = signature.new_key(new_key)
        say_line(f"Keep {new_key} to yourself, and give {public} to whoever opens your bundles.")
        say_next(f"rekd-edge sign BUNDLE --key {new_key}")

        return

    if bundle is None or key is None:
        raise InputError("Give a bundle and --key FILE; make a key with: rekd-edge sign --new-key FILE")

    signer = signature.sign(bundle, key)
    say_line(f"{bundle} is signed with the key {signer}")
    say_next(f"rekd-edge verify {bundle} --trusted-key {key}.pub")


@app.command()
def verify(
    bundle: BundlePath,
    trusted_key: TrustedKeys = None,
    as_json: JsonFlag = False,
) -> None:
    """Check that nothing in a bundle was cut or changed; with --trusted-key also who made it."""
    from rekd_edge.models import find_bundle
    from rekd_edge.runtime.signature import verify_bundle

    report = verify_bundle(find_bundle(bundle), trusted_key)

    if as_json:
        print_json(report)
        return

    print_figures(report)
    if report["signed_by"] is None:
        say_line("Nothing was damaged. Only a signature shows whether someone changed it; see --trusted-key.")

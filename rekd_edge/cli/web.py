"""`rekd-edge web`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import BundlePath, JsonFlag
from rekd_edge.cli.printing import print_json, say_line
from rekd_edge.errors import InputError


@app.command()
def web(
    bundle: BundlePath,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A new folder for the page, to be put on any web server.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Open the page on this machine, until Ctrl-C.")] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of --serve; a free one if not given, or 0.")
    ] = None,
    example: Annotated[str | None, typer.Option(metavar="TEXT", help="The text that the page begins with.")] = None,
    packages: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A node_modules folder with onnxruntime-web.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a page that runs a bundle in the browser: static files, nothing leaves the page, works offline."""
    if output is not None and port is not None:
        raise InputError("--port goes with --serve; a folder is put on any web server.")
    if (output is None) == (not serve):
        raise InputError("Give --output FOLDER to write the page, or --serve to open it on this machine.")

    from rekd_edge.web import write_page

    if output is not None:
        report = write_page(bundle, output, example, packages)
        if as_json:
            print_json(report)
        else:
            say_line(f"{output} holds the page: {report['files']} files, {report['bytes'] / 1e6:.1f} MB")
            say_line("Put it on any web server; https (or localhost) lets it work offline and be installed.")
        return

    with tempfile.TemporaryDirectory() as folder:
        write_page(bundle, Path(folder, "page"), example, packages)
        _serve(Path(folder, "page"), port or 0, as_json)


def _serve(page: Path, port: int, as_json: bool) -> None:
    import webbrowser

    from rekd_edge.web import PageServer

    with PageServer(page, port) as server:
        try:
            if as_json:
                print_json({"address": server.address})
            else:
                say_line(f"{server.address} shows the page; end with Ctrl-C")
            sys.stdout.flush()

            if sys.stdout.isatty():
                webbrowser.open(server.address)
            server.serve_forever()
        except KeyboardInterrupt as error:  # how a server ends: nothing was cut off
            raise SystemExit(getattr(error, "exit_status", 130)) from None

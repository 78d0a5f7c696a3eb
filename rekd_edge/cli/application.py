"""The application that the verbs are commands of, and how it is run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rekd_edge import __version__
from rekd_edge.errors import UnsealedBundleWarning
from rekd_edge.process import run_command

__all__ = ["app", "main"]


class _CutOffError(Exception):
    """Carries what typer would take for Ctrl-C out of it."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self.reason = reason


class _Verbs(TyperGroup):
    """typer knows no signals but Ctrl-C, and takes an end of file in the work itself for that."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError) as error:
            raise _CutOffError(error) from error


app = typer.Typer(
    cls=_Verbs,
    name="rekd-edge",
    help="Classifiers that show which words or patches they decide from, trained, distilled, exported and run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

UsageError: type[Exception] = typer.BadParameter.__base__  # type: ignore[assignment]
"""Wrong usage, as typer raises it: a class of its own copy of click."""


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; every failure is one sentence on standard error and the contract's exit status."""
    run_command(_run, lambda error: _usage_sentence(error) if isinstance(error, UsageError) else None)


def _run() -> Any:
    try:
        with _notes_for_users():
            status = app(standalone_mode=False, prog_name=app.info.name)
    except _CutOffError as error:
        raise error.reason from None
    except typer.Abort:  # Ctrl-C outside a verb
        raise KeyboardInterrupt from None

    if status == 130:  # what typer makes of it
        raise KeyboardInterrupt
    return status


@contextmanager
def _notes_for_users() -> Iterator[None]:
    """Warnings that are meant for users become one line each; all others stay as they are."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, UnsealedBundleWarning):
                from rekd_edge.progress import say

                say(f"note: {message}")
            else:
                show(message, category, *where, **more)

        warnings.showwarning = show_note
        warnings.simplefilter("once", UnsealedBundleWarning)
        yield


def _usage_sentence(error: Any) -> str:
    """What typer found wrong, and the command that shows how it is right."""
    command = error.ctx.command_path if error.ctx is not None else app.info.name
    return f"{error.format_message().rstrip('.') or 'Give a command'}; see: {command} --help"

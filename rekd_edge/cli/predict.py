"""`rekd-edge predict`: texts and images one by one, or whole Parquet files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import BundlePath, Engine, JsonFlag, TrustedKeys
from rekd_edge.cli.printing import print_json, say_line, show_prediction
from rekd_edge.engines import EngineSettings
from rekd_edge.errors import InputError
from rekd_edge.lines import LONGEST_LINE, text_lines
from rekd_edge.models import find_bundle
from rekd_edge.process import goes_on
from rekd_edge.progress import say

if TYPE_CHECKING:
    from rekd_edge.runtime import Rationalizer

PREDICT_CHUNK = 64
TOLD = 1000


@app.command()
def predict(
    bundle: BundlePath,
    inputs: Annotated[list[str] | None, typer.Argument(metavar="INPUT", help="Texts, image files, or '-'.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write the image with its rationale (one image).")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the text with its rationale as a picture (one text).")] = None,
    folder: Annotated[
        Path | None, typer.Option("--input", metavar="PATH", help="Predict a Parquet file, or a folder of them.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where their results go.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Their texts; found by its name if not given.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Their images; likewise.")] = None,
    engine: Annotated[Engine, typer.Option(help="Where they are predicted.")] = Engine.LOCAL,
    workers: Annotated[int | None, typer.Option(help="Processes; as many as there are processors by default.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster; this machine by default.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each worker; 1 by default.")] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append every decision to a log that verify-record can check.")
    ] = None,
    record_inputs: Annotated[bool, typer.Option(help="Write texts into the log, not only their hashes.")] = False,
    abstain_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="Give no label where its probability is lower.")
    ] = None,
    abstain: Annotated[
        bool, typer.Option("--abstain", help="Give no label unless the bundle's stated coverage leaves exactly one.")
    ] = False,
    trusted_key: TrustedKeys = None,
    as_json: JsonFlag = False,
) -> None:
    """Label texts or images and show the words or patches that the label rests on."""
    if folder is not None:
        if inputs or output is None or abstain or any(given is not None for given in (png, svg, record, abstain_below)):
            raise InputError(
                "--input takes --output FOLDER for the results, and neither INPUT nor --png, --svg, --record, "
                "--abstain or --abstain-below beside it."
            )
        if record_inputs:
            raise InputError("--record-inputs goes with --record FILE, which --input does not take.")

        bundle = find_bundle(bundle)
        if trusted_key:
            from rekd_edge.runtime.bundle import Manifest

            Manifest.load(bundle, trusted_keys=trusted_key)

        settings = EngineSettings(engine.value, workers, address)
        columns = {"text_column": text_column, "image_column": image_column}
        _predict_files(bundle, folder, output, settings, as_json, **columns, threads=1 if threads is None else threads)

        return

    bulk = {
        "--output": output,
        "--text-column": text_column,
        "--image-column": image_column,
        "--workers": workers,
        "--address": address,
        "--engine": None if engine is Engine.LOCAL else engine,
    }
    if idle := next((name for name, value in bulk.items() if value is not None), None):
        raise InputError(f"{idle} goes with --input, a Parquet file or a folder of them; give that too.")
    if not inputs:
        raise InputError(
            "Nothing to predict: give texts or image files, or '-' for one text per line on standard input."
        )

    from rekd_edge.runtime import Rationalizer

    bundle = find_bundle(bundle)
    rationalizer = Rationalizer.load(bundle, threads=threads, trusted_keys=trusted_key)
    if png is not None and (rationalizer.manifest.image is None or len(inputs) != 1):
        raise InputError("--png draws the rationale of one image; give one image file and an image bundle.")
    if svg is not None and (rationalizer.manifest.image is not None or len(inputs) != 1):
        raise InputError("--svg draws the rationale of one text; give one text and a text bundle.")

    if record_inputs and record is None:
        raise InputError("--record-inputs goes with --record FILE; give that too.")

    if abstain and abstain_below is not None:
        raise InputError("--abstain takes the bundle's threshold and --abstain-below one of yours; give one of them.")

    doubt = _doubt(rationalizer, abstain, abstain_below)
    rows = chain.from_iterable(
        text_lines(sys.stdin.buffer, "standard input") if given == "-" else [given] for given in inputs
    )
    with _log(record, rationalizer, bundle, record_inputs) as log:
        for chunk in _recorded(_chunks(rows), log is not None and not sys.stdout.isatty()):
            predictions = rationalizer(chunk) if log is None else log.predict(chunk)
            for source, prediction in zip(chunk, predictions, strict=True):
                _draw(source, prediction, png, svg)
                reason, fields = doubt(prediction)

                if as_json:
                    print(json.dumps(prediction.to_dict() | fields), flush=True)
                else:
                    if reason is not None:
                        say_line(f"I don't know: {reason}. The likeliest is")
                    show_prediction(source, prediction)


def _doubt(
    rationalizer: Rationalizer, abstain: bool, below: float | None
) -> Callable[[Any], tuple[str | None, dict[str, Any]]]:
    """From a prediction to why no label is given (None if one is), and to what its document says of that.

    Raises:
        InputError: the bundle's coverage is asked for and it states none.
    """
    if abstain:
        coverage = rationalizer.coverage

        def of_the_bundle(prediction: Any) -> tuple[str | None, dict[str, Any]]:
            possible = rationalizer.possible_labels(prediction)
            named = ", ".join(possible) if possible else "none"
            reason = f"at a coverage of {coverage} the possible labels are {named}" if len(possible) != 1 else None
            return reason, {"abstained": reason is not None, "possible_labels": possible}

        return of_the_bundle

    if below is None:
        return lambda prediction: (None, {})

    def of_the_user(prediction: Any) -> tuple[str | None, dict[str, Any]]:
        unsure = max(prediction.scores.values()) < below
        return f"no label has a probability of {below}" if unsure else None, {"abstained": unsure}

    return of_the_user


def _log(path: Path | None, rationalizer: Rationalizer, bundle: Path, keep_inputs: bool) -> AbstractContextManager[Any]:
    """The log of `--record`; None without it."""
    if path is None:
        return nullcontext()

    from rekd_edge.records import DecisionLog

    return DecisionLog(path, rationalizer, bundle, keep_inputs)


def _draw(source: str, prediction: Any, png: Path | None, svg: Path | None) -> None:
    """The pictures that were asked for."""
    if png is None and svg is None:
        return

    from rekd_edge.runtime.display import rationale_png, rationale_svg

    if png is not None:
        rationale_png(source, prediction, png)
    if svg is not None:
        rationale_svg(source, prediction, svg)


def _predict_files(
    bundle: Path, source: Path, output: Path, engine: EngineSettings, as_json: bool, **options: Any
) -> None:
    """Predict Parquet files, and say how many rows and how fast."""
    from rekd_edge.bulk import predict_files

    with goes_on("the same command"):
        report = predict_files(bundle, source, output, engine, **options)

    if as_json:
        print_json(report)
    else:
        now = f"; {report['predicted']} predicted now, {report['rows_per_s']:.0f} rows/s" if report["predicted"] else ""
        print(f"{report['rows']} rows in {report['files']} files, {report['errors']} without a prediction{now}")


def _chunks(inputs: Iterable[str]) -> Iterator[list[str]]:
    """What is predicted together: `PREDICT_CHUNK` inputs, or fewer that are as long as the longest line."""
    chunk: list[str] = []
    characters = 0

    for given in inputs:
        chunk.append(given)
        characters += len(given)
        if len(chunk) == PREDICT_CHUNK or characters >= LONGEST_LINE:
            yield chunk
            chunk, characters = [], 0

    if chunk:
        yield chunk


def _recorded(chunks: Iterable[list[str]], told: bool) -> Iterator[list[str]]:
    """The same chunks; on request a line on standard error after each `TOLD` inputs."""
    done = 0
    for chunk in chunks:
        yield chunk
        before, done = done, done + len(chunk)
        if told and done // TOLD > before // TOLD:
            say(f"predict: {done} decisions on record")

"""The command line: one thin function a verb; heavy imports happen inside the verb that needs them."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum, StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from typer.core import TyperGroup

from rekd_edge import __version__
from rekd_edge.engines import EngineSettings
from rekd_edge.errors import FailureError, InputError, UnsealedBundleWarning
from rekd_edge.methods import METHODS
from rekd_edge.process import goes_on, run_command
from rekd_edge.terminal import in_one_line, printable

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

PREDICT_CHUNK = 64
LONGEST_LINE = 2**24  # bytes of a text on standard input
BENCH_INPUTS = 64
RATIO_TOLERANCE = 0.02
UsageError: type[Exception] = typer.BadParameter.__base__  # type: ignore[assignment]
"""Wrong usage, as typer raises it: click's own before typer 0.26, a copy inside typer since."""


Method = Enum("Method", {name.upper(): name for name, method in METHODS.items() if method.public}, type=str)  # type: ignore[misc]
METHOD_HELP = "; ".join(f"{name}: {method.summary}" for name, method in METHODS.items() if method.public) + "."


class Precision(StrEnum):
    """Number formats of a bundle."""

    FP32 = "fp32"
    INT8 = "int8"


class Target(StrEnum):
    """Where a bundle will run."""

    CPU = "cpu"
    MOBILE = "mobile"
    WEB = "web"


class MaskKind(StrEnum):
    """Values of `evaluate --masks`."""

    DETERMINISTIC = "deterministic"
    SAMPLED = "sampled"


class Engine(StrEnum):
    """Where tasks are run."""

    LOCAL = "local"
    RAY = "ray"


class Isa(StrEnum):
    """Instruction sets that a bundle may be meant for."""

    AUTO = "auto"
    AVX2 = "avx2"
    AVX512_VNNI = "avx512_vnni"
    ARM64 = "arm64"


SPEC_HELP = "A .csv, .jsonl or .parquet file, a folder with one for each split or of images, a Hub name, builtin:NAME."
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, for example data.text_column=body.")
]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that export wrote.")]
TrustedKeys = Annotated[
    list[Path] | None,
    typer.Option(
        "--trusted-key", metavar="FILE", help="A public key; the bundle must be signed with it, or one of several."
    ),
]


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="A new folder for runs and bundles.")] = Path("rekd-edge-demo"),
    as_json: JsonFlag = False,
) -> None:
    """The main job on built-in data: teacher, student, distilled student, int8 bundle, predictions, one table."""
    from rekd_edge.demo import print_demo, run_demo

    report = run_demo(output)
    if as_json:
        _print_json(report)
    else:
        print_demo(report)


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
    recipe = load_config(config, _with_flags(_parse_settings(settings), flags), strict=True)

    from rekd_edge.progress import SPEAKS
    from rekd_edge.training.display import TrainingDisplay
    from rekd_edge.training.processes import leave
    from rekd_edge.training.run import train as train_run

    with goes_on("the same command with --resume"):
        metrics = train_run(recipe, output, resume, lambda stage: [TrainingDisplay(stage)])
    leave()
    if not SPEAKS:
        return
    if as_json:
        _print_json(metrics)
        return
    _print_figures(metrics)
    _say_next(f"rekd-edge export {output} --output {output}-int8 --precision int8")


@app.command()
def sweep(
    grid: Annotated[
        str | None, typer.Argument(metavar="GRID", help="A YAML file, or the name of a shipped grid.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For runs and table; an earlier sweep's goes on.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="Processes of this machine, or a Ray cluster.")] = Engine.LOCAL,
    workers: Annotated[int | None, typer.Option(min=1, help="Runs at a time.")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; by default Ray starts here.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="Share of a GPU for each run.")] = None,
    settings: Settings = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds instead of the grid's.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try runs again that failed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and train nothing.")] = False,
    list_grids: Annotated[bool, typer.Option("--list", help="List the shipped grids.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train methods, sizes, settings and seeds of a grid, and write their means beside the published figures."""
    from rekd_edge.sweep.grid import load_grid, shipped_grids
    from rekd_edge.sweep.plan import expand

    if list_grids:
        grids = [load_grid(name) for name in shipped_grids()]
        for each in grids:
            _say(f"{each.name:<20} {len(expand(each)):>5} runs  {each.title}")
        return
    if grid is None:
        raise InputError("Name a grid, a YAML file or one that --list shows.")
    if address is not None and engine is not Engine.RAY:
        raise InputError("--address is that of a Ray cluster; add --engine ray.")
    overrides = _parse_settings(settings)
    chosen = load_grid(grid, overrides, seeds)

    from rekd_edge.sweep.run import command_of, describe, run_sweep

    if dry_run:
        for line in describe(chosen):
            print(printable(line))
        return
    if output is None:
        raise InputError("A sweep needs a folder for its runs; give --output.")

    place = EngineSettings(engine.value, workers, address)
    with goes_on("the same command"):
        document = run_sweep(chosen, output, place, retry, gpus, command_of(grid, overrides, seeds))
    if as_json:
        _print_json(document)
    else:
        _show_tables(document, output)
    if failed := document["failed"]:
        names = ", ".join(each["run"] for each in failed[:3]) + (", …" if len(failed) > 3 else "")
        raise FailureError(
            f"{len(failed)} of {len(expand(chosen))} runs failed ({names}); their error.json in {output} says why, "
            "and --retry tries them again."
        )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    output: Annotated[Path, typer.Option(metavar="BUNDLE", help="A new folder for the bundle.")],
    precision: Annotated[Precision, typer.Option(help="Number format.")] = Precision.FP32,
    target: Annotated[Target, typer.Option(help="Where it will run.")] = Target.CPU,
    calibration_data: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Data to calibrate and verify on.")
    ] = None,
    isa: Annotated[Isa, typer.Option(help="Recorded; int8 weights are right on all.")] = Isa.AUTO,
    force: Annotated[bool, typer.Option("--force", help="Write the bundle even if its check fails.")] = False,
    trim: Annotated[
        bool, typer.Option("--trim-vocabulary", help="Leave out word pieces that no training text holds.")
    ] = False,
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
        data_settings=_data_settings(settings),
        force=force,
        trim=trim,
    )
    if as_json:
        _print_json(manifest)
        return
    checks = ("precision", "verified", "vocabulary", "parity", "quantization", "invariance")
    _print_manifest({name: manifest[name] for name in checks if manifest[name] is not None})
    _say_next(f"rekd-edge predict {output} …", f"rekd-edge bench {output}")


@app.command()
def predict(
    bundle: BundlePath,
    inputs: Annotated[list[str] | None, typer.Argument(metavar="INPUT", help="Texts, image files, or '-'.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write the image with its rationale (one image).")] = None,
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
    trusted_key: TrustedKeys = None,
    as_json: JsonFlag = False,
) -> None:
    """Label texts or images and show the words or patches that the label rests on."""
    if folder is not None:
        if inputs or png is not None or output is None:
            raise InputError("--input takes --output FOLDER for the results, and neither INPUT nor --png beside it.")
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

    rationalizer = Rationalizer.load(bundle, threads=threads, trusted_keys=trusted_key)
    if png is not None and (rationalizer.manifest.image is None or len(inputs) != 1):
        raise InputError("--png draws the rationale of one image; give one image file and an image bundle.")
    rows = chain.from_iterable(_lines(sys.stdin.buffer) if given == "-" else [given] for given in inputs)
    for chunk in _chunks(rows):
        for source, prediction in zip(chunk, rationalizer(chunk), strict=True):
            if png is not None:
                from rekd_edge.runtime.display import rationale_png

                rationale_png(source, prediction, png)
            if as_json:
                print(json.dumps(prediction.to_dict()), flush=True)
            else:
                _show(source, prediction)


@app.command()
def evaluate(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="What train or export wrote.")],
    data: Annotated[str, typer.Option(metavar="SPEC", help=SPEC_HELP)],
    split: Annotated[str, typer.Option(help="Which split; 'all' is every one.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many examples.")] = None,
    masks: Annotated[
        MaskKind, typer.Option(help="Of a run: as on the device, or sampled as in training.")
    ] = MaskKind.DETERMINISTIC,
    settings: Settings = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure accuracy and rationale ratio on a split."""
    from rekd_edge.evaluate import evaluate as evaluate_path

    report = evaluate_path(path, data, _data_settings(settings), split, limit, masks.value)
    if as_json:
        _print_json(report)
    else:
        _print_figures(report)


@app.command()
def bench(
    bundle: BundlePath,
    data: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Measure on its test inputs; random ones else.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads; all cores by default.")] = None,
    baseline: Annotated[list[Path] | None, typer.Option(help="A bundle or Optimum folder to compare with.")] = None,
    batch_size: Annotated[int, typer.Option(help="Rows a run.")] = 1,
    tokens: Annotated[int | None, typer.Option(help="Tokens a row.")] = None,
    repeats: Annotated[int, typer.Option(help="Timed runs of each system.")] = 100,
    settings: Settings = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure latency, throughput, size, memory and cold start, beside baselines in the same process."""
    from rekd_edge.progress import say, steps
    from rekd_edge.runtime.benchmark import BenchSettings, run_benchmark
    from rekd_edge.runtime.bundle import Manifest

    sample = None
    if data is not None:
        from rekd_edge.data import DataSettings, load_data

        task = Manifest.load(bundle, verify=False).task.removesuffix("-classification")
        source = load_data(data, _data_settings(settings) or DataSettings())
        if source.task != task:
            raise InputError(f"{bundle} reads {task}, {data} is {source.task}; give --data of its kind.")
        split = source.split("test" if "test" in source.splits else "validation")
        sample = list(split.select(range(min(BENCH_INPUTS, len(split)))).inputs)
    with steps("bench") as step:
        report = run_benchmark(
            bundle,
            BenchSettings(threads=threads, batch_size=batch_size, tokens=tokens, repeats=repeats),
            inputs=sample,
            baselines=baseline or [],
            progress=step,
        )
    ratio, target = report["rationale_ratio"], report["target_ratio"]
    if sample is None and target is not None and abs(ratio - target) > RATIO_TOLERANCE:
        say(
            f"On generated inputs the rationale ratio is {ratio:.1%} and not the target's {target:.1%}, so the latency "
            "is not that on real ones; give --data for that."
        )
    if as_json:
        _print_json(report)
        return
    baselines = report.pop("baselines")
    _print_figures(report)
    for other in baselines:
        p50 = other["latency_ms"]["p50"]
        _say(f"  beside {other['name']}: {p50:.2f} ms at p50, ours takes {other['ratio']:.2f} of it")


@app.command()
def inspect(bundle: BundlePath, as_json: JsonFlag = False) -> None:
    """Show what a bundle is and what was checked, after checking its seal, every file's SHA-256, and its graph."""
    from rekd_edge.runtime import Rationalizer

    rationalizer = Rationalizer.load(bundle, threads=1)
    rationalizer.check_longest()
    manifest = dict(rationalizer.manifest.fields)
    if as_json:
        _print_json(manifest)
    else:
        _print_manifest(manifest)


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
        _say(f"Keep {new_key} to yourself, and give {public} to whoever opens your bundles.")
        _say_next(f"rekd-edge sign BUNDLE --key {new_key}")
        return
    if bundle is None or key is None:
        raise InputError("Give a bundle and --key FILE; make a key with: rekd-edge sign --new-key FILE")
    signer = signature.sign(bundle, key)
    _say(f"{bundle} is signed with the key {signer}")
    _say_next(f"rekd-edge verify {bundle} --trusted-key {key}.pub")


@app.command()
def verify(
    bundle: BundlePath,
    trusted_key: TrustedKeys = None,
    as_json: JsonFlag = False,
) -> None:
    """Check that nothing in a bundle was cut or changed; with --trusted-key also who made it."""
    from rekd_edge.runtime.signature import verify_bundle

    report = verify_bundle(bundle, trusted_key)
    if as_json:
        _print_json(report)
        return
    _print_figures(report)
    if report["signed_by"] is None:
        _say("Nothing was damaged. Only a signature shows whether someone changed it; see --trusted-key.")


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
    if status == 130:  # what typer makes of it since version 0.16
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


def _predict_files(
    bundle: Path, source: Path, output: Path, engine: EngineSettings, as_json: bool, **options: Any
) -> None:
    """Predict Parquet files, and say how many rows and how fast."""
    from rekd_edge.bulk import predict_files

    with goes_on("the same command"):
        report = predict_files(bundle, source, output, engine, **options)
    if as_json:
        _print_json(report)
    else:
        now = f"; {report['predicted']} predicted now, {report['rows_per_s']:.0f} rows/s" if report["predicted"] else ""
        print(f"{report['rows']} rows in {report['files']} files, {report['errors']} without a prediction{now}")


def _parse_settings(settings: list[str] | None) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for setting in settings or []:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not equals or not key:
            raise InputError(f"--set takes key=value, not {setting!r}.")
        if key in parsed:
            raise InputError(f"--set {key} is given twice, as {parsed[key]!r} and {value!r}; give it once.")
        parsed[key] = value
    return parsed


def _with_flags(settings: dict[str, str], flags: dict[str, Any]) -> dict[str, Any]:
    """Settings and flags as one; `None` is a flag that was not given.

    Raises:
        InputError: both give the same setting, and disagree.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    both = {"data.spec" if key == "spec" else key: value for key, value in settings.items()}
    for key in both.keys() & given.keys():
        if both[key] != str(given[key]):
            flag = "--" + key.removeprefix("data.").replace("spec", "data").replace("_", "-")
            raise InputError(f"{flag} {given[key]} and --set {key}={both[key]} disagree; give one of them.")
    return {**both, **given}


def _data_settings(settings: list[str] | None) -> Any:
    """The `data.…` settings of verbs that take nothing else; None where there are none."""
    parsed = _parse_settings(settings)
    other = next((key for key in parsed if not key.startswith("data.") or key == "data.spec"), None)
    if other is not None:
        raise InputError(f"{other!r} is not a setting of this command; it takes data.NAME=value alone.")
    if not parsed:
        return None
    from rekd_edge.data import DataSettings

    return DataSettings.given(parsed)


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


def _lines(stream: BinaryIO) -> Iterator[str]:
    """UTF-8 lines, whatever the locale; bytes that are none are replaced, and a byte order mark is no text.

    Raises:
        InputError: a line is longer than `LONGEST_LINE`.
    """
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise InputError(f"Line {number} of standard input has more than {LONGEST_LINE} bytes; give it in parts.")
        text = line.decode("utf-8", errors="replace").rstrip("\r\n")
        yield text.removeprefix("\ufeff") if number == 1 else text


def _show(source: str, prediction: Any) -> None:
    from rekd_edge.progress import SafeConsole
    from rekd_edge.runtime.display import show

    show(SafeConsole(highlight=False), source, prediction)


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def _print_manifest(fields: dict[str, Any]) -> None:
    """The figures of a manifest, or some of them; a trimmed vocabulary takes one line."""
    if found := fields.get("vocabulary"):
        gain = 100 * (found["accuracy_trimmed"] - found["accuracy_full"])
        line = (
            f"{found['pieces']} of {found['of']} pieces; accuracy {found['accuracy_trimmed']:.3f} "
            f"({gain:+.1f} points); {found['changed_rows']} of {found['rows']} rows are tokenised otherwise"
        )
        fields = {**fields, "vocabulary": line}
    _print_figures(fields)


def _print_figures(figures: dict[str, Any], indent: str = "  ") -> None:
    """Names and values, one a line; nested tables are indented."""
    width = max(map(len, figures), default=0)
    for name, value in figures.items():
        if isinstance(value, dict) and value:
            _say(f"{indent}{name}")
            _print_figures(value, indent + "  ")
        else:
            _say(f"{indent}{name:<{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")


def _show_tables(document: dict[str, Any], output: Path) -> None:
    from rekd_edge.progress import SafeConsole
    from rekd_edge.sweep.rendering import as_rich, sections

    terminal = SafeConsole()
    for section in sections(document):
        print(f"{printable(section.title)}\n")
        if terminal.is_terminal:
            terminal.print(as_rich(section, terminal.width))
        else:
            SafeConsole(width=1000).print(as_rich(section))
        print(f"\n{printable(section.legend)}\n")
    _say(f"{output / 'table.md'}, {output / 'table.json'}")


def _say_next(*commands: str) -> None:
    print("\nnext:")
    for command in commands:
        _say(f"  {command}")


def _say(line: str) -> None:
    """One line on standard output, whatever is in it."""
    print(in_one_line(line))

"""`rekd-edge bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rekd_edge.cli.application import app
from rekd_edge.cli.options import BundlePath, JsonFlag, Settings, data_settings
from rekd_edge.cli.printing import print_json, print_tables, say_line
from rekd_edge.errors import InputError

BENCH_INPUTS = 64
RATIO_TOLERANCE = 0.02


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
    from rekd_edge.models import find_bundle
    from rekd_edge.progress import say, steps
    from rekd_edge.runtime.benchmark import BenchSettings, run_benchmark
    from rekd_edge.runtime.bundle import Manifest

    sample = None

    if data is not None:
        from rekd_edge.data import DataSettings, load_data

        task = Manifest.load(find_bundle(bundle), verify=False).task.removesuffix("-classification")

        source = load_data(data, data_settings(settings) or DataSettings())
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
        print_json(report)
        return

    baselines = report.pop("baselines")
    print_tables(report)

    for other in baselines:
        p50 = other["latency_ms"]["p50"]
        say_line(f"  beside {other['name']}: {p50:.2f} ms at p50, ours takes {other['ratio']:.2f} of it")

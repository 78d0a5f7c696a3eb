"""Accuracy against latency of a finished sweep's students: which of them is worth its milliseconds?

    rekd-edge sweep methods-digits --output runs/methods-digits
    python benchmarks/frontier.py runs/methods-digits

Each line of the sweep's table is exported to int8 from its first seed; all bundles predict the same test inputs in
turn, on one thread, one input at a time. Writes `results/frontier-NAME.json` and a plot beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from _results import RESULTS, Times, in_turn, percentiles, write_results

from rekd_edge import Rationalizer
from rekd_edge.data import DataSettings, load_data
from rekd_edge.export import export_bundle
from rekd_edge.modeling import RationaleModel
from rekd_edge.runs import RunFolder

INPUTS = 64
SHAPE = ("method", "backbone", "layers", "generator_layers", "mask_mode", "target_ratio")
FIGURES = ("accuracy", "rationale_ratio", "rationale_f1")


def main() -> None:
    """Export and time the students, and write one row a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="the folder of a finished sweep")
    parser.add_argument("--repeats", type=int, default=200, help="timed predictions of each bundle")
    given = parser.parse_args()

    document = json.loads((given.sweep / "table.json").read_text())
    lines: dict[str, list[dict[str, Any]]] = {}
    for run in document["rows"]:
        if run["role"] == "student" and run["method"] != "control":
            line, *_ = run["run"].rsplit("-", 2)  # without the seed and the digest
            lines.setdefault(line, []).append(run)

    rows = [measured(given.sweep, line, runs) for line, runs in lines.items()]
    seconds = timed([given.sweep / "int8" / row["run"] for row in rows], test_inputs(given.sweep, rows), given.repeats)
    rows = [row | percentiles(times) for row, times in zip(rows, seconds, strict=True)]

    name = document["benchmark"].replace("sweep-", "frontier-", 1)
    write_results(name, rows)
    plot(rows, RESULTS / f"{name}.png")


def measured(sweep: Path, line: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean figures of a line's runs, and the sizes of the first one, which is exported."""
    folder, bundle = sweep / "runs" / runs[0]["run"], sweep / "int8" / runs[0]["run"]
    shutil.rmtree(bundle, ignore_errors=True)
    bundle.parent.mkdir(exist_ok=True)
    manifest = export_bundle(folder, bundle, "int8")

    model = RationaleModel.from_pretrained(folder)
    towers = [tower for tower in (model.predictor, model.generator) if tower is not None]
    embeddings = {id(weight): weight.numel() for tower in towers for weight in tower.encoder.embedding.parameters()}
    parameters = sum(weight.numel() for weight in model.parameters())
    values = {key: [run[key] for run in runs if run.get(key) is not None] for key in FIGURES}

    return {
        "line": line,
        **{key: runs[0][key] for key in SHAPE},
        "seeds": len(runs),
        **{key: sum(each) / len(each) for key, each in values.items() if each},
        "parameters": parameters,
        "parameters_without_embeddings": parameters - sum(embeddings.values()),
        "int8_bytes": manifest["files"]["model.onnx"]["size"],
        "mask_agreement": manifest["quantization"]["mask_agreement"],
        "run": runs[0]["run"],
    }


def test_inputs(sweep: Path, rows: Sequence[dict[str, Any]]) -> Sequence[Any]:
    """The first test inputs of the first run's data."""
    recipe = RunFolder(sweep / "runs" / rows[0]["run"]).read_record()["recipe"]
    data = {key: value for key, value in recipe["data"].items() if key != "spec"}
    settings = replace(DataSettings(**data), test_limit=INPUTS)
    return load_data(recipe["data"]["spec"], settings).split("test").inputs


def timed(bundles: Sequence[Path], inputs: Sequence[Any], repeats: int) -> list[Times]:
    """Seconds of each bundle's predictions, all in turn on the same inputs, after one that is not counted."""
    systems = []

    for bundle in bundles:
        rationalizer = Rationalizer.load(bundle, threads=1)
        rationalizer(inputs[0])
        systems.append(lambda turn, predict=rationalizer: predict(inputs[turn % len(inputs)]))

    return in_turn(systems, repeats)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy against the median latency."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(6, 4), layout="constrained")

    for row in rows:
        panel.plot(row["p50_ms"], 100 * row["accuracy"], "o", label=row["line"])

    panel.set(xlabel="ms, int8, one thread", ylabel="test accuracy (%)", xlim=(0, None))
    panel.legend(fontsize="small")
    panel.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main()

"""How many rows per second does bulk prediction process, with one and two workers, in processes and on Ray?

    python benchmarks/bulk.py --imdb FOLDER --tokenizer FOLDER

IMDB reviews in Parquet files, an int8 bundle of BERT-mini's geometry, one thread per worker. Time is measured from the
call to the last finished file, including starting processes, opening bundles and starting and stopping Ray.
`rationalizer` is the lower bound: the same texts as one list in this process, with the bundle open and nothing written.
Systems alternate, and the fastest turn counts, because a busy machine affects it least. `cpu_seconds` is the smallest
total over all processes, for machines that others use too (it is unknown on Ray).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from _bundles import Material, Recipe
from _results import in_turn, write_results

from rekd_edge import Rationalizer
from rekd_edge.bulk import predict_files
from rekd_edge.engines import EngineSettings
from rekd_edge.progress import say

FILES = 8
TOKENS = 256


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every system: one row each."""
    material = Material(arguments)
    bundle = Recipe.of("bert-mini", [TOKENS]).bundle(material, "int8")
    test = material.data("text").split("test")
    texts = [str(text) for text in test.select(range(arguments.rows)).inputs]
    rationalizer = Rationalizer.load(bundle, threads=1)
    engines = [EngineSettings(name, workers) for name in ("local", "ray") for workers in (1, 2)]

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        write_inputs(texts, source)
        systems: list[Callable[[int], Any]] = [lambda turn: rationalizer(texts)]
        systems += [partial(predict_anew, bundle, source, arguments, engine) for engine in engines]
        cpu: list[list[float]] = [[] for _ in systems]
        times = in_turn([partial(counting, *pair) for pair in zip(systems, cpu, strict=True)], arguments.repeats)

    names = [{"system": "rationalizer", "workers": 1}]
    names += [{"system": "rekd-edge", "engine": engine.name, "workers": engine.workers} for engine in engines]
    common = {"geometry": "bert-mini", "precision": "int8", "threads": 1, "rows": len(texts), "files": FILES}

    return [
        {
            **name,
            **common,
            "seconds": round(min(taken), 2),
            "rows_per_s": round(len(texts) / min(taken), 1),
            **({"cpu_seconds": round(min(spent), 2)} if name.get("engine") != "ray" else {}),
        }
        for name, taken, spent in zip(names, times, cpu, strict=True)
    ]


def counting(system: Callable[[int], Any], spent: list[float], turn: int) -> None:
    """Run a system and record the processor seconds of this process and of the child processes that it waited for."""
    before = sum(os.times()[:4])
    system(turn)
    spent.append(sum(os.times()[:4]) - before)


def write_inputs(texts: list[str], folder: Path) -> None:
    """Write the texts to `FILES` Parquet files."""
    folder.mkdir()
    for number in range(FILES):
        part = texts[number::FILES]
        pq.write_table(pa.table({"id": range(len(part)), "text": part}), folder / f"{number}.parquet")


def predict_anew(bundle: Path, source: Path, arguments: argparse.Namespace, engine: EngineSettings, turn: int) -> None:
    """Predict everything into a temporary folder."""
    output = source.parent / f"{engine.name}-{engine.workers}-{turn}"
    report = predict_files(bundle, source, output, engine, rows_per_task=arguments.rows_per_task)
    say(f"{engine.name} x {engine.workers}: {report['rows_per_s']:.0f} rows/s")
    shutil.rmtree(output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    Material.add_arguments(parser)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rows-per-task", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=2)
    print(write_results("bulk", measure(parser.parse_args())))

"""Does an explained prediction cost less than the black box? Latency beside Optimum's and OpenVINO's classifiers.

    python benchmarks/latency.py --imdb FOLDER --cifar10 FOLDER --tokenizer FOLDER
    python benchmarks/latency.py --geometry bert-mini --tokens 256 --batch 1 --threads 1

Graphs run on ready arrays, ours with a local generator and with one of transformer layers. All systems of a geometry,
length, batch size and thread count take turns in one process, on the same inputs: real texts cut to the length (never
padded), or images. At each turn a system runs a few times in a row: the first finds the caches full of another system's
weights, as on a device that does other things in between (`first_ms` is its median), the others find its own. Beside
the median stands that of the processor time, which other processes on the machine disturb less; bars are judged by it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product, zip_longest
from typing import Any

import numpy as np
from _bundles import GENERATORS, GEOMETRIES, LOCAL, Feed, Material, Recipe, rationale_ratio, selected
from _peers import BlackBox, System, onnx_system
from _results import in_turn, percentiles, write_results

from rekd_edge.progress import say
from rekd_edge.runtime.bundle import LAYOUT
from rekd_edge.runtime.session import open_session

OURS = "rekd-edge"
PRECISIONS = ("fp32", "int8")
BARS = {
    "bert-mini": {32: 0.55, 128: 0.27, 256: 0.20, 512: 0.14},
    "bert-small": {256: 0.20},
    "vit-tiny": {196: 0.25},
}
"""Of Optimum's int8 classifier's time, at most, by the number of tokens or patches."""
ROWS = 32
"""Inputs that are measured on; batches are made of them."""
BATCHES = 8
WARM_UP = 2
IN_A_ROW = 3
"""Runs of a system at each turn."""


def main() -> None:
    """Write one row a system, and what ours takes of the others' time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", nargs="+", choices=GEOMETRIES, default=list(GEOMETRIES))
    parser.add_argument("--tokens", nargs="+", type=int, help="of texts, special tokens included")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--generator", nargs="+", choices=GENERATORS, default=list(GENERATORS))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="int8 at least")
    parser.add_argument("--repeats", type=int, default=40, help="turns")
    Material.add_arguments(parser)
    arguments = parser.parse_args()
    material = Material(arguments)
    rows = []

    for geometry in arguments.geometry:
        task = GEOMETRIES[geometry].task
        lengths = arguments.tokens if arguments.tokens and task == "text" else list(BARS[geometry])
        rows += measured(geometry, lengths, arguments, material)

    name = "latency" if len(arguments.generator) > 1 else f"latency-{arguments.generator[0]}"
    write_results(name, rows, in_a_row=IN_A_ROW, summary=summary(rows))


def measured(
    geometry: str, lengths: list[int], arguments: argparse.Namespace, material: Material
) -> list[dict[str, Any]]:
    """The rows of one geometry."""
    task = GEOMETRIES[geometry].task
    recipes = [Recipe.of(geometry, lengths, generator) for generator in arguments.generator]
    graphs = {
        (r, precision): r.bundle(material, precision) / LAYOUT.graph
        for r in recipes
        for precision in arguments.precision
    }
    black_box = BlackBox(geometry, material)
    sessions = {which: open_session(graph, 1) for which, graph in graphs.items()}
    inputs = {}

    for tokens in lengths:
        feeds = material.feeds(task, tokens)
        inputs[tokens] = [feeds[i] for i in selected(list(sessions.values()), feeds, recipes[0].ratio, ROWS)]

    rows = []
    for threads in arguments.threads:
        ours = [onnx_system(OURS, precision, graph, threads) for (_, precision), graph in graphs.items()]
        peers = [system for system in black_box.systems(threads) if system.precision in arguments.precision]
        systems = [*ours, *peers]
        facts = [{**r.facts(), "session": session} for (r, _), session in sessions.items()]

        for tokens, size in product(lengths, arguments.batch):
            chunks = batches(inputs[tokens], size)
            times = timed([(system, chunks) for system in systems], arguments.repeats)
            found = []

            for system, time, own in zip_longest(systems, times, facts):
                found.append(
                    {
                        "system": system.name,
                        "geometry": geometry,
                        "precision": system.precision,
                        "generator": own and own["generator"],
                        "generator_layers": own and own["generator_layers"],
                        "tokens": tokens,
                        "batch_size": size,
                        "threads": threads,
                        "rationale_ratio": rationale_ratio(own["session"], chunks) if own else 1.0,
                        **time,
                    }
                )

            add_ratios(found)
            rows += found

    return rows


def batches(rows: list[Feed], size: int) -> list[Feed]:
    """Rows of one length in batches, `BATCHES` of them at most."""
    starts = range(0, min(len(rows), BATCHES * size), size)
    chunks = [rows[start : start + size] for start in starts]
    return [{name: np.concatenate([row[name] for row in chunk]) for name in chunk[0]} for chunk in chunks]


def timed(systems: Sequence[tuple[System, list[Feed]]], repeats: int) -> list[dict[str, float]]:
    """Percentiles of each system's times on its batches, all in turn, after a warm-up on every batch."""
    turns = []
    for system, chunks in systems:
        feeds = [system.feed(chunk) for chunk in chunks]
        turns.append(lambda turn, system=system, feeds=feeds: system.run(feeds[turn % len(feeds)]))
    in_turn(turns, max(WARM_UP, *(len(chunks) for _, chunks in systems)))
    measured = in_turn(turns, repeats, [IN_A_ROW] * len(turns))
    return [{**percentiles(times), "first_ms": percentiles(times[::IN_A_ROW])["p50_ms"]} for times in measured]


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Set beside each time what it is of Optimum's int8 classifier, and show it."""
    optimum = row_of(rows, "optimum-classifier")
    for row in rows:
        row["ratio_to_optimum_int8"] = round(row["p50_ms"] / optimum["p50_ms"], 4)
        row["processor_ratio_to_optimum_int8"] = round(row["processor_ms"] / optimum["processor_ms"], 4)
        say(
            "{geometry}, {tokens} tokens, batch {batch_size}, threads {threads}: {system} {generator} {precision}, "
            "rationale {rationale_ratio:.1%}, {p50_ms:.2f} ms, {ratio_to_optimum_int8:.3f} of Optimum, processor "
            "time {processor_ratio_to_optimum_int8:.3f}".format(**row)
        )


def row_of(rows: list[dict[str, Any]], system: str, generator: str | None = None) -> dict[str, Any]:
    """The int8 row of one system among rows of one setting."""
    wanted = {"system": system, "precision": "int8", **({"generator": generator} if generator else {})}
    return next(row for row in rows if wanted.items() <= row.items())


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours over the others, int8, one input at a time on one thread.

    By medians, by processor time (`processor_`), by the shortest times (`best_`), and by the first run of each turn
    (`first_`).
    """
    single = [row for row in rows if row["batch_size"] == row["threads"] == 1]
    found = []

    for geometry, tokens, generator in dict.fromkeys(
        (row["geometry"], row["tokens"], row["generator"]) for row in single if row["generator"]
    ):
        at = [row for row in single if (row["geometry"], row["tokens"]) == (geometry, tokens)]
        ours = row_of(at, OURS, generator)
        result = {
            "geometry": geometry,
            "tokens": tokens,
            "generator": generator,
            "rationale_ratio": ours["rationale_ratio"],
        }

        for name in ("optimum", "openvino"):
            peer = row_of(at, f"{name}-classifier")
            for kind in ("p50", "processor", "best", "first"):
                before = "" if kind == "p50" else f"{kind}_"
                result[f"{before}over_{name}_int8"] = round(ours[f"{kind}_ms"] / peer[f"{kind}_ms"], 3)

        bar = BARS[geometry].get(tokens) if generator == LOCAL else None
        if bar is not None:
            result |= {"bar": bar, "passed": result["processor_over_optimum_int8"] <= bar}
        found.append(result)

    return found


if __name__ == "__main__":
    main()

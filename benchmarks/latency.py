"""Does an explained prediction cost less than the black box? Latency beside Optimum's and OpenVINO's classifiers.

    python benchmarks/latency.py --imdb FOLDER --cifar10 FOLDER --tokenizer FOLDER
    python benchmarks/latency.py --geometry bert-mini --tokens 256 --batch 1 --threads 1

Graphs run on ready arrays. All systems of a geometry, length, batch size and thread count take turns in one process,
on the same inputs: real texts cut to the length (never padded), or images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from _bundles import GEOMETRIES, Feed, Material, Recipe, rationale_ratio, selected
from _peers import BlackBox, System, onnx_system
from _results import in_turn, percentiles, write_results

from rekd_edge.progress import say
from rekd_edge.runtime.bundle import LAYOUT
from rekd_edge.runtime.session import open_session

OURS = "rekd-edge"
PRECISIONS = ("fp32", "int8")
TOKENS = {"text": [32, 128, 256], "image": [196]}
BAR = 0.5
"""Of Optimum's int8 classifier's time, at most."""
ROWS = 32
"""Inputs that are measured on; batches are made of them."""
BATCHES = 8
WARM_UP = 2


def main() -> None:
    """Write one row a system, and what ours takes of the others' time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", nargs="+", choices=GEOMETRIES, default=list(GEOMETRIES))
    parser.add_argument("--tokens", nargs="+", type=int, help=f"of texts, special tokens included; {TOKENS['text']}")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=40)
    Material.add_arguments(parser)
    arguments = parser.parse_args()
    material = Material(arguments)
    rows = []

    for geometry in arguments.geometry:
        task = GEOMETRIES[geometry].task
        lengths = arguments.tokens if arguments.tokens and task == "text" else TOKENS[task]
        rows += measured(geometry, lengths, arguments, material)

    write_results("latency", rows, summary=summary(rows))


def measured(
    geometry: str, lengths: list[int], arguments: argparse.Namespace, material: Material
) -> list[dict[str, Any]]:
    """The rows of one geometry."""
    task = GEOMETRIES[geometry].task
    recipe = Recipe.of(geometry, lengths)
    graphs = {precision: recipe.bundle(material, precision) / LAYOUT.graph for precision in PRECISIONS}
    black_box = BlackBox(geometry, material)
    sessions = {precision: open_session(graph, 1) for precision, graph in graphs.items()}
    inputs = {}

    for tokens in lengths:
        feeds = material.feeds(task, tokens)
        inputs[tokens] = [feeds[i] for i in selected(list(sessions.values()), feeds, recipe.ratio, ROWS)]

    rows = []
    for threads in arguments.threads:
        ours = [onnx_system(OURS, precision, graph, threads) for precision, graph in graphs.items()]
        systems = [*ours, *black_box.systems(threads)]

        for tokens, size in product(lengths, arguments.batch):
            chunks = batches(inputs[tokens], size)
            times = timed([(system, chunks) for system in systems], arguments.repeats)
            found = []

            for system, time in zip(systems, times, strict=True):
                own = system.name == OURS
                found.append(
                    {
                        "system": system.name,
                        "geometry": geometry,
                        "precision": system.precision,
                        "generator_layers": recipe.generator_layers if own else None,
                        "tokens": tokens,
                        "batch_size": size,
                        "threads": threads,
                        "rationale_ratio": rationale_ratio(sessions[system.precision], chunks) if own else 1.0,
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
    return [percentiles(times) for times in in_turn(turns, repeats)]


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Set beside each time what it is of Optimum's int8 classifier, and show it."""
    optimum = row_of(rows, "optimum-classifier")
    for row in rows:
        row["ratio_to_optimum_int8"] = round(row["p50_ms"] / optimum["p50_ms"], 4)
        say(
            "{geometry}, {tokens} tokens, batch {batch_size}, threads {threads}: {system} {precision}, rationale "
            "{rationale_ratio:.1%}, {p50_ms:.2f} ms, {ratio_to_optimum_int8:.3f} of Optimum".format(**row)
        )


def row_of(rows: list[dict[str, Any]], system: str) -> dict[str, Any]:
    """The int8 row of one system among rows of one setting."""
    return next(row for row in rows if (row["system"], row["precision"]) == (system, "int8"))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours over the others, int8, one input at a time on one thread, at the longest length of each geometry.

    By medians, and by the shortest times (`best_`).
    """
    found = []
    for geometry in dict.fromkeys(row["geometry"] for row in rows):
        own = [row for row in rows if row["geometry"] == geometry and row["batch_size"] == row["threads"] == 1]
        at = [row for row in own if row["tokens"] == max(row["tokens"] for row in own)]
        if not at:
            continue

        ours = row_of(at, OURS)
        result = {"geometry": geometry, "tokens": ours["tokens"], "rationale_ratio": ours["rationale_ratio"]}

        for name in ("optimum", "openvino"):
            peer = row_of(at, f"{name}-classifier")
            result[f"over_{name}_int8"] = round(ours["p50_ms"] / peer["p50_ms"], 3)
            result[f"best_over_{name}_int8"] = round(ours["best_ms"] / peer["best_ms"], 3)

        found.append({**result, "bar": BAR, "passed": result["over_optimum_int8"] <= BAR})

    return found


if __name__ == "__main__":
    main()

"""Does a change of the exporter change what graphs answer, or how long they take? The same runs, before and after.

    rekd-edge export RUN --output before/NAME     with the version before the change
    rekd-edge export RUN --output after/NAME      with the version after it
    python benchmarks/graphs.py before after

Both graphs of a name take turns in one process, on one thread, on the same random inputs of every length.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from _bundles import Feed
from _results import in_turn, write_results

from rekd_edge.files import read_json
from rekd_edge.runtime.bundle import LAYOUT
from rekd_edge.runtime.session import open_session

OUTPUTS = ["rationale_mask", "selection_margin", "logits"]
LENGTHS = (32, 256)
ROWS = 12


def main() -> None:
    """Write one row a bundle and length; pairs are [before, after]."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs=2, type=Path, metavar="FOLDER", help="of bundles with the same names")
    parser.add_argument("--repeats", type=int, default=20, help="times that every input is timed")
    given = parser.parse_args()
    rows = []

    for name in sorted(bundle.name for bundle in given.folders[0].iterdir()):
        graphs = [folder / name / LAYOUT.graph for folder in given.folders]
        nodes = [len(onnx.load(graph).graph.node) for graph in graphs]
        for positions, feeds in random_inputs(read_json(graphs[0].with_name(LAYOUT.manifest))).items():
            found = compared(graphs, feeds, given.repeats)
            rows.append({"bundle": name, "positions": positions, "nodes": nodes, **found})

    write_results("graphs", rows)


def compared(graphs: list[Path], feeds: list[Feed], repeats: int) -> dict[str, Any]:
    """How the answers and the times of two graphs differ."""
    sessions = [open_session(graph, 1) for graph in graphs]
    answers = [[session.run(OUTPUTS, feed) for feed in feeds] for session in sessions]
    masks, margins, logits = zip(*[map(np.stack, zip(*each, strict=True)) for each in answers], strict=True)

    systems = [lambda turn, session=session: session.run(OUTPUTS, feeds[turn % ROWS]) for session in sessions]
    times = np.array([each.processor for each in in_turn(systems, repeats * ROWS)]) * 1000  # [2, turns]

    return {
        "mask_differences": int((masks[0] != masks[1]).sum()),
        "largest_margin_difference": float(np.abs(margins[0] - margins[1]).max()),
        "largest_logit_difference": float(np.abs(logits[0] - logits[1]).max()),
        "processor_ms": np.median(times, axis=1).round(4).tolist(),
        "ratio": round(float(np.median(times[1] / times[0])), 4),  # within each turn
    }


def random_inputs(manifest: dict[str, Any]) -> dict[int, list[Feed]]:
    """`ROWS` inputs of each length that the bundle reads: pixels, or ids between the class and separator tokens."""
    random = np.random.default_rng(0)
    if image := manifest.get("image"):
        pixels = random.normal(size=(ROWS, 1, 3, image["height"], image["width"])).astype(np.float32)
        return {image["height"] * image["width"] // image["patch_size"] ** 2: [{"pixel_values": row} for row in pixels]}

    (first, last), longest = manifest["text"]["special_token_ids"], manifest["text"]["max_length"]
    found: dict[int, list[Feed]] = {}
    for length in sorted({min(length, longest) for length in LENGTHS}):
        rows = [np.array([[first, *random.integers(5, 60, length - 2), last]]) for _ in range(ROWS)]
        found[length] = [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]
    return found


if __name__ == "__main__":
    main()

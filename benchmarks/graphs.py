"""Does a change of the exporter change what graphs answer, or how long they take? The same runs, before and after.

    rekd-edge export RUN --output before/NAME     with the version before the change
    rekd-edge export RUN --output after/NAME      with the version after it
    python benchmarks/graphs.py before after

Both graphs of a name take turns in one process, on one thread, on the same random inputs of every length.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from _bundles import Feed
from _results import in_turn, write_results
from onnxruntime import InferenceSession

from rekd_edge.files import read_json
from rekd_edge.runtime.bundle import LAYOUT
from rekd_edge.runtime.session import open_session

OUTPUTS = ["rationale_mask", "selection_margin", "logits"]
LENGTHS = (32, 256)
ROWS = 12


def main() -> None:
    """Write one row a bundle and length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs=2, type=Path, metavar="FOLDER", help="of bundles with the same names")
    parser.add_argument("--repeats", type=int, default=20, help="times that every input is timed")
    given = parser.parse_args()
    names = sorted(bundle.name for bundle in given.folders[0].iterdir())

    write_results("graphs", [row for name in names for row in compared(name, given.folders, given.repeats)])


def compared(name: str, folders: list[Path], repeats: int) -> list[dict[str, Any]]:
    """The rows of one bundle, one a length; pairs are [before, after]."""
    graphs = [folder / name / LAYOUT.graph for folder in folders]
    sessions = [open_session(graph, 1) for graph in graphs]
    nodes = [len(onnx.load(graph).graph.node) for graph in graphs]
    rows = []

    for length, feeds in random_inputs(read_json(folders[0] / name / LAYOUT.manifest)).items():
        answers = [[session.run(OUTPUTS, feed) for feed in feeds] for session in sessions]
        masks, margins, logits = zip(*[map(np.stack, zip(*each, strict=True)) for each in answers], strict=True)
        times = np.array(in_turn([partial(answer, session, feeds) for session in sessions], repeats * ROWS)) * 1000

        rows.append(
            {
                "bundle": name,
                "positions": length,
                "nodes": nodes,
                "mask_differences": int((masks[0] != masks[1]).sum()),
                "largest_margin_difference": float(np.abs(margins[0] - margins[1]).max()),
                "largest_logit_difference": float(np.abs(logits[0] - logits[1]).max()),
                "p50_ms": np.median(times, axis=1).round(4).tolist(),
                "ratio": round(float(np.median(times[1] / times[0])), 4),  # within each turn
            }
        )

    return rows


def answer(session: InferenceSession, feeds: list[Feed], turn: int) -> None:
    """Run one of the inputs."""
    session.run(OUTPUTS, feeds[turn % ROWS])


def random_inputs(manifest: dict[str, Any]) -> dict[int, list[Feed]]:
    """`ROWS` inputs of each length that the bundle reads: pixels, or ids between the class and separator tokens."""
    random = np.random.default_rng(0)
    if image := manifest.get("image"):
        pixels = random.normal(size=(ROWS, 1, 3, image["height"], image["width"])).astype(np.float32)
        return {image["height"] * image["width"] // image["patch_size"] ** 2: [{"pixel_values": row} for row in pixels]}

    (first, last), longest = manifest["text"]["special_token_ids"], manifest["text"]["max_length"]
    found: dict[int, list[Feed]] = {}
    for length in sorted({min(length, longest) for length in LENGTHS}):
        ids = [np.array([[first, *random.integers(5, 60, length - 2), last]]) for _ in range(ROWS)]
        found[length] = [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in ids]

    return found


if __name__ == "__main__":
    main()

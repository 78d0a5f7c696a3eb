"""Does memory stay flat when thousands of reviews stream through `evaluate`, `predict --record` and `verify-record`?

    python benchmarks/streaming.py --imdb SPEC [--counts 1000 10000]

A BERT-mini bundle (random weights, local generator, int8) is asked about so many reviews of the test split by the
command line, each command in a process of its own that states its peak resident memory. `evaluate` reads the
whole data in any case, and `verify-record` holds the texts. Writes `results/streaming.json`, with how often progress
was shown. Status 1 if a record is not repeated bit by bit, or if the memory of `evaluate` or `predict` grows by over
10 % from the first count to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _bundles import Material, Recipe
from _results import write_results

from rekd_edge.progress import say

TOKENS = 128
ALLOWED_GROWTH = 0.1
CHILD = """
import atexit, sys
from pathlib import Path
from rekd_edge.cli import main
from rekd_edge.runtime.memory import peak_memory

place = sys.argv.pop(1)
atexit.register(lambda: Path(place).write_text(str(peak_memory())))
main()
"""
"""A verb that writes its own peak at the end: what the system says of a child includes the memory of its parent."""


def main() -> None:
    """Measure every command at every count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Material.add_arguments(parser)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000])
    arguments = parser.parse_args()

    material = Material(arguments)
    bundle = Recipe.of("bert-mini", [TOKENS]).bundle(material, "int8")
    reviews = [
        " ".join(str(text).split()) for text in material.data("text").split("test").inputs[: max(arguments.counts)]
    ]
    rows: list[dict[str, Any]] = []

    for count in sorted(arguments.counts):
        with tempfile.TemporaryDirectory() as name:
            texts, log = Path(name) / "texts.txt", Path(name) / "decisions.jsonl"
            texts.write_text("\n".join(reviews[:count]) + "\n", encoding="utf-8")
            data = ["--data", arguments.imdb, "--limit", str(count), "--json"]
            replay = ["--bundle", str(bundle), "--texts", str(texts), "--json"]

            for command, given in {
                "evaluate": ([str(bundle), *data], None),
                "predict --record": ([str(bundle), "-", "--record", str(log), "--json"], texts),
                "verify-record": ([str(log), *replay], None),
            }.items():
                rows.append({"command": command, "inputs": count, **measured(command.split()[0], *given)})
                say(f"{command}, {count}: {rows[-1]['peak_memory_bytes'] / 1e6:.0f} MB, {rows[-1]['seconds']} s")

    growth = {command: _growth([row for row in rows if row["command"] == command]) for command in _names(rows)}
    repeated = all(row["exact"] == row["inputs"] for row in rows if row["command"] == "verify-record")
    write_results("streaming", rows, summary={"growth": growth, "all_repeated_bit_by_bit": repeated})
    streamed = max(value for command, value in growth.items() if command != "verify-record")
    sys.exit(not repeated or streamed > ALLOWED_GROWTH)


def measured(verb: str, options: list[str], source: Path | None) -> dict[str, Any]:
    """Run a verb: peak memory of its process, seconds, lines of progress, and for `verify-record` what it counted."""
    with tempfile.TemporaryDirectory() as folder, open(source or os.devnull, "rb") as stream:
        place = Path(folder) / "peak"
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(place), verb, *options],
            stdin=stream,
            capture_output=True,
            check=False,
        )
        told = done.stderr.decode().splitlines()
        if done.returncode:
            raise SystemExit(f"{verb} failed: {told[-1:]}")
        peak = int(place.read_text())

    return {
        "peak_memory_bytes": peak,
        "seconds": round(time.monotonic() - start),
        "progress_lines": sum(line.startswith(verb.split("-")[0]) for line in told),
        **({"exact": json.loads(done.stdout)["exact"]} if verb == "verify-record" else {}),
    }


def _growth(rows: list[dict[str, Any]]) -> float:
    """Peak memory at the most inputs over that at the fewest, less 1."""
    return round(rows[-1]["peak_memory_bytes"] / rows[0]["peak_memory_bytes"] - 1, 4)


def _names(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["command"] for row in rows))


if __name__ == "__main__":
    main()

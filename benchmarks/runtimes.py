"""Is the answer the same in every runtime? The vectors in Python, Node, headless Chromium and on emulated aarch64.

    python benchmarks/runtimes.py                      # Python, Node, Chromium
    python benchmarks/runtimes.py --runtime aarch64    # under qemu-user, see aarch64.py

Each runtime reads tests/vectors and answers every input. A row says for one runtime and bundle how many masks, labels,
ids and offsets differ from those that the run (fp32) or the int8 graph gave where the vectors were made, outside the
band of near-ties that the bundle's manifest states and inside it, and how far the margins drift. A runtime that is not
there is skipped with its reason. Rows of runtimes that were not asked stay as they are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _results import RESULTS, write_results
from aarch64 import CPUS, emulated_python, missing_tools

from rekd_edge.progress import say

ROOT = Path(__file__).parent.parent
VECTORS = ROOT / "tests" / "vectors"
RUNTIMES = ("python", "node", "chromium", "aarch64")
NAME = "runtimes"

Answers = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Ask every runtime, compare, and write one row a runtime and bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", nargs="+", choices=RUNTIMES, default=list(RUNTIMES[:3]))
    parser.add_argument("--work", type=Path, default=Path("runs/aarch64"), help="folder of what aarch64 needs")
    arguments = parser.parse_args()

    rows = [row for row in earlier_rows() if row["runtime"].partition(" ")[0] not in arguments.runtime]
    for runtime in arguments.runtime:
        if reason := why_not(runtime):
            say(f"{runtime} is skipped: {reason}")
            continue

        for name, command in commands(runtime, arguments.work).items():
            say(f"asking {name}")
            document = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout
            rows += [{"runtime": name, **compared(bundle, found)} for bundle, found in json.loads(document).items()]

    order = {name: place for place, name in enumerate(RUNTIMES)}
    rows.sort(key=lambda row: order[row["runtime"].partition(" ")[0]])
    write_results(NAME, rows)

    for row in rows:
        say("{runtime:22} {bundle:10} masks {mask_differences}, labels {label_differences}, ids {id_differences}, "
            "drift {largest_margin_drift:.1e} of {band:.1e}".format(**row))  # fmt: skip
    wrong = [row for row in rows if any(row[name] for name in DIFFERENCES)]
    if wrong:
        raise SystemExit(f"{wrong[0]['runtime']} gives other answers on {wrong[0]['bundle']}.")


DIFFERENCES = ("mask_differences", "label_differences", "id_differences", "offset_differences")


def earlier_rows() -> list[dict[str, Any]]:
    """Of the last call."""
    path = RESULTS / f"{NAME}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def why_not(runtime: str) -> str | None:
    """Why a runtime cannot be asked here."""
    no_node = shutil.which("node") is None or not (ROOT / "js" / "node_modules").is_dir()
    if runtime in ("node", "chromium") and no_node:
        return "it needs Node and its packages: cd js && npm ci --ignore-scripts"
    if runtime == "aarch64" and (missing := missing_tools()):
        return f"it needs {', '.join(missing)}: apt-get install qemu-user"
    return None


def commands(runtime: str, work: Path) -> dict[str, list[str]]:
    """By the name of a row's runtime: what prints the answers."""
    script = str(VECTORS / "answer.py")
    if runtime == "python":
        return {"python": [sys.executable, script]}
    if runtime == "aarch64":
        return {f"aarch64 {cpu}": [*emulated_python(work, cpu, [ROOT]), script] for cpu in CPUS}
    return {runtime: ["node", str(ROOT / "js" / "scripts" / "vectors.js"), runtime]}


def compared(bundle: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """One row: what differs between a runtime's answers and the vectors'."""
    task, precision = bundle.split("-")
    manifest = json.loads((VECTORS / "bundles" / bundle / "manifest.json").read_text(encoding="utf-8"))
    band = manifest["near_ties"]["width"]
    row = {"bundle": bundle, "precision": precision, "inputs": len(found), "features": 0, "band": band}
    row |= dict.fromkeys((*DIFFERENCES, "mask_differences_in_band"), 0) | {"largest_margin_drift": 0.0}

    for given, vector in zip(found, json.loads((VECTORS / f"{task}.json").read_text(encoding="utf-8")), strict=True):
        expected = vector["run" if precision == "fp32" else precision]
        margins, answered = np.array(expected["margins"]), np.array(given["margins"])
        unequal = np.array(given["mask"], bool) != np.array(expected["mask"], bool)
        clear = np.abs(margins) > band

        row["features"] += len(margins)
        row["mask_differences"] += int((unequal & clear).sum())
        row["mask_differences_in_band"] += int((unequal & ~clear).sum())
        row["label_differences"] += int(given["label"] != expected["label"])
        row["largest_margin_drift"] = max(
            row["largest_margin_drift"], float(np.abs(answered - margins).max(initial=0.0))
        )
        if task == "text":
            row["id_differences"] += int(given["ids"] != vector["ids"])
            row["offset_differences"] += int(given["offsets"] != vector["offsets"])

    return row


if __name__ == "__main__":
    main()

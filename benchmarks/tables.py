"""Recompute the tables of the committed sweeps from the runs that they hold, after the code of tables changed.

    python benchmarks/tables.py [NAME ...]

Trains nothing. Prints the tables as Markdown.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from _results import RESULTS

from rekd_edge.files import read_json, write_json
from rekd_edge.sweep.grid import load_grid
from rekd_edge.sweep.plan import expand
from rekd_edge.sweep.rendering import as_markdown
from rekd_edge.sweep.table import published, summarised


def main() -> None:
    """Rewrite the named sweeps, all by default."""
    for path in sorted(RESULTS.glob("sweep-*.json")):
        if sys.argv[1:] and path.stem.removeprefix("sweep-") not in sys.argv[1:]:
            continue
        document = retabled(read_json(path))
        write_json(path, document)
        print(as_markdown(document))


def retabled(document: dict[str, Any]) -> dict[str, Any]:
    """A sweep's document with tables recomputed from its rows."""
    words = shlex.split(document["command"])
    seeds = int(words[words.index("--seeds") + 1]) if "--seeds" in words else None
    grid = load_grid(Path(words[2]).stem, seeds=seeds)
    results = {row["run"].rpartition("-")[0]: row for row in document["rows"]}

    plan = expand(grid)
    if missing := sorted(results.keys() - plan.keys()):
        raise SystemExit(f"{document['benchmark']} holds {missing[0]}, which its grid no longer names.")

    tables = {"table": summarised(grid, plan, results), "published": published(grid)}
    rest = {key: value for key, value in document.items() if key not in ("source", *tables, "failed", "rows")}
    return {**rest, "source": grid.source, **tables, **{key: document[key] for key in ("failed", "rows")}}


if __name__ == "__main__":
    main()

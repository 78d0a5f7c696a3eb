"""How every benchmark takes time, and one shape for every file under `benchmarks/results/`."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rekd_edge.versions import processor, versions

__all__ = ["RESULTS", "in_turn", "percentiles", "write_results"]

PACKAGES = ("torch", "transformers", "onnxruntime", "optimum", "optimum-onnx", "numpy", "tokenizers")
ISA = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Instruction sets that int8 products care for."""
PEERS = ("openvino", "nncf", "captum", "lime")
RESULTS = Path(__file__).parent / "results"


def in_turn(
    systems: Sequence[Callable[[int], Any]], repeats: int, each: Sequence[int] | None = None
) -> list[list[float]]:
    """Seconds of every run, one list a system: they take turns in one process, and the first place moves on each time.

    Args:
        systems: each is called with the number of the turn.
        repeats: how many turns.
        each: runs in a row at each turn; 1 by default.
    """
    times: list[list[float]] = [[] for _ in systems]
    for turn in range(repeats):
        for place in range(len(systems)):
            index = (turn + place) % len(systems)
            for _ in range(each[index] if each else 1):
                start = time.perf_counter()
                systems[index](turn)
                times[index].append(time.perf_counter() - start)

    return times


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """`p50_ms`, `p95_ms` and `best_ms`, the shortest: what a busy machine disturbs least."""
    p50, p95, best = np.percentile(seconds, [50, 95, 0]) * 1000
    return {"p50_ms": round(float(p50), 4), "p95_ms": round(float(p95), 4), "best_ms": round(float(best), 4)}


def write_results(name: str, rows: list[dict[str, Any]], **more: Any) -> Path:
    """Write `results/NAME.json`: what was measured, by which command, on what."""
    document = {
        "benchmark": name,
        "command": "python " + " ".join(shlex.quote(part) for part in sys.argv),
        "environment": {**processor(), "isa": instruction_sets(), "threads": _threads(), **versions(*PACKAGES, *PEERS)},
        "rows": rows,
        **more,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    return path


def instruction_sets() -> list[str]:
    """Those of `ISA` that this machine has."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    return [name for name in ISA if name in words]


def _threads() -> int:
    import torch

    return int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads()))

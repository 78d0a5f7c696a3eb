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

__all__ = ["RESULTS", "Times", "in_turn", "percentiles", "write_results"]

PACKAGES = ("torch", "transformers", "onnxruntime", "optimum", "optimum-onnx", "numpy", "tokenizers")
ISA = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Instruction sets that int8 products care for."""
PEERS = ("openvino", "nncf", "captum", "lime", "shap")
RESULTS = Path(__file__).parent / "results"


class Times(list[float]):
    """Seconds of each run, and the `processor` time that it took on all threads of this process: what a busy machine
    adds to the former while a run waits is no part of the latter."""

    def __init__(self) -> None:
        super().__init__()
        self.processor: list[float] = []


def in_turn(systems: Sequence[Callable[[int], Any]], repeats: int, each: Sequence[int] | None = None) -> list[Times]:
    """Times of every run, one list a system: they take turns in one process, and the first place moves on each time.

    Args:
        systems: each is called with the number of the turn.
        repeats: how many turns.
        each: runs in a row at each turn; 1 by default.
    """
    times = [Times() for _ in systems]
    for turn in range(repeats):
        for place in range(len(systems)):
            index = (turn + place) % len(systems)
            for _ in range(each[index] if each else 1):
                start, processor = time.perf_counter(), time.process_time()
                systems[index](turn)
                times[index].processor.append(time.process_time() - processor)
                times[index].append(time.perf_counter() - start)

    return times


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """`p50_ms`, `p95_ms` and `best_ms`, the shortest; `processor_ms`, the median of the processor time, where that was
    taken."""
    found = dict(zip(("p50_ms", "p95_ms", "best_ms"), np.percentile(seconds, [50, 95, 0]) * 1000, strict=True))
    if isinstance(seconds, Times):
        found["processor_ms"] = np.median(seconds.processor) * 1000
    return {name: round(float(value), 4) for name, value in found.items()}


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

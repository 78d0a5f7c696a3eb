"""One shape for every file under `benchmarks/results/`."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from rekd_edge.versions import versions

__all__ = ["write_results"]

PACKAGES = ("torch", "transformers", "onnxruntime", "optimum", "optimum-onnx", "numpy", "tokenizers")
RESULTS = Path(__file__).parent / "results"


def write_results(name: str, rows: list[dict[str, Any]], **more: Any) -> Path:
    """Write `results/NAME.json`: what was measured, by which command, on what."""
    document = {
        "benchmark": name,
        "command": "python " + " ".join(shlex.quote(part) for part in sys.argv),
        "environment": {**_processor(), "threads": _threads(), **versions(*PACKAGES)},
        "rows": rows,
        **more,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def _processor() -> dict[str, str]:
    import torch

    if torch.cuda.is_available():
        return {"gpu": torch.cuda.get_device_name()}
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {"cpu": models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()}


def _threads() -> int:
    import torch

    return int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads()))

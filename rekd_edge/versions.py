"""Versions of what a result was made with, and the processor."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["processor", "versions"]


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, of rekd-edge and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in ("rekd-edge", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def processor() -> dict[str, str]:
    """`gpu` where torch sees one, else `cpu`."""
    import torch

    if torch.cuda.is_available():
        return {"gpu": torch.cuda.get_device_name()}
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {"cpu": models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()}

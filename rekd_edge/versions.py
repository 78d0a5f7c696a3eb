"""Versions of what a result was made with, and the processor."""

from __future__ import annotations

import json
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

__all__ = ["processor", "source_commit", "versions"]


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, of rekd-edge and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in ("rekd-edge", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue

    return found


def source_commit() -> str | None:
    """The commit that this package was installed or is run from, with `-dirty` for a changed checkout; None if that
    cannot be told, as of a wheel from an index."""
    with suppress(PackageNotFoundError, ValueError, KeyError, TypeError):
        installed = distribution("rekd-edge").read_text("direct_url.json") or "{}"
        return str(json.loads(installed)["vcs_info"]["commit_id"])

    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return None

    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None

    return done.stdout.strip() or None


def processor() -> dict[str, str]:
    """`gpu` where torch sees one, else `cpu`."""
    import torch

    if torch.cuda.is_available():
        return {"gpu": torch.cuda.get_device_name()}

    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {"cpu": models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()}

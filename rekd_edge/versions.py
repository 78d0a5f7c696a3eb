"""Versions of what a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, of rekd-edge and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in ("rekd-edge", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

"""Peak memory of this process, from what the operating system keeps anyway."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["peak_memory"]


def peak_memory() -> int | None:
    """Peak resident size in bytes, or None where the system does not tell."""
    try:
        # Not getrusage on Linux: its figure starts from the size of the process that forked this one.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass

    try:
        import resource
    except ImportError:  # Windows
        return None

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""What the C library does with memory that a step has freed."""

from __future__ import annotations

import ctypes
import platform

import torch

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of malloc.h."""


def keep_freed_memory() -> None:
    """From now on glibc keeps what this process frees for its next tensors, instead of giving it back to the system.

    By default each large tensor is mapped anew, and every training step on a CPU has the system clear the same
    gigabytes again, page by page. Kept, they cost fragments instead: `benchmarks/training.py allocator` has both
    figures. Does nothing where there is a GPU, whose memory PyTorch keeps itself, or no glibc. Source: mallopt(3),
    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if torch.cuda.is_available() or platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_MAX, 0)  # tensors come from the heap
    library.mallopt(M_TRIM_THRESHOLD, -1)  # whose end is never cut off

"""Freed memory is used again: counted in page faults, each of which clears a page of 4 KiB."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from rekd_edge.training.allocator import keep_freed_memory

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(16 * 2**20)  # 64 MiB, 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults(4)
keep_freed_memory()
faults(20)  # pieces between aligned tensors settle first
print(given_back, faults(4))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed memory back")
def test_large_tensors_take_kept_memory():
    answer = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    given_back, kept = map(int, answer.stdout.split())
    assert given_back >= 4 * 10_000
    assert kept < 1_000

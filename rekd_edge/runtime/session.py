"""Open an ONNX graph with ONNX Runtime on the CPU, the same way everywhere."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at the import; it would write a file among temporary ones

import onnxruntime

from rekd_edge.errors import InputError
from rekd_edge.runtime.border import check_threads, in_short

__all__ = ["open_session"]

FATAL = 4


def open_session(
    path: Path, threads: int | None = None, *, profile: Path | None = None
) -> onnxruntime.InferenceSession:
    """Open a graph with `threads` threads (all physical cores by default).

    With `profile`, the session records the time of every node; its `end_profiling()` writes a JSON file whose name
    begins with that path, and returns the name.

    Raises:
        InputError: the graph cannot be read, or `threads` is out of range.
    """
    check_threads(threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL  # errors come as exceptions; the log would write them too, in colour
    # A worker that spins between two nodes takes as much energy as one that works, and slows whatever else runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Planning which tensors share a buffer takes a fifth of the opening; the arena hands freed ones on just as well.
    options.enable_mem_reuse = False

    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)

    try:
        # The fallback to other providers would print what went wrong to standard output, and try the same again.
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise InputError(f"{path} cannot be opened by ONNX Runtime ({in_short(error)}); export it again.") from error

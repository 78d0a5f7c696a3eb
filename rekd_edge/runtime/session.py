"""Open an ONNX graph with ONNX Runtime on the CPU, the same way everywhere."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from rekd_edge.errors import InputError

__all__ = ["open_session"]


def open_session(path: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open a graph with `threads` threads (all physical cores by default).

    Raises:
        InputError: the graph cannot be read, or `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads cannot run anything; give 1 or more.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    # Idle worker threads stop at the end of a run: they would drain a device, and slow a neighbour in a benchmark.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be opened by ONNX Runtime ({reason}); export it again.") from error

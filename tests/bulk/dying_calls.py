"""A worker that some texts kill, as an image does that takes all memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rekd_edge.bulk.ranges import RowRange, predict_ranges
from rekd_edge.runtime import Rationalizer

FATAL = "this text kills its process"


def predict_or_die(bundle: Path, ranges: Sequence[RowRange], threads: int) -> list[str]:
    answer = Rationalizer.__call__

    def answer_or_die(rationalizer: Rationalizer, inputs: Any) -> Any:
        if any(text.startswith(FATAL) for text in inputs):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer(rationalizer, inputs)

    Rationalizer.__call__ = answer_or_die  # type: ignore[method-assign,assignment]
    return predict_ranges(bundle, ranges, threads)

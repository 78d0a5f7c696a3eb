"""What share of a graph's time each stage of the pipeline takes, from ONNX Runtime's own profiler."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray

from rekd_edge.runtime.session import open_session

__all__ = ["GATHER", "GENERATOR", "PREDICTOR", "stage_shares", "stage_times"]

STAGES = GENERATOR, GATHER, PREDICTOR = "generator", "gather", "predictor"
"""Export begins the name of every node with its stage and a slash."""
KERNEL = "_kernel_time"


def stage_shares(
    graph: Path, feeds: Sequence[Mapping[str, NDArray[Any]]], threads: int | None = None
) -> dict[str, float] | None:
    """Share of the kernels' time that each stage takes over one run of every feed, after one that is not counted.

    Returns:
        Shares that sum to 1, or None where the names of the graph's nodes tell no stage.

    Raises:
        InputError: the graph cannot be opened.
    """
    with TemporaryDirectory() as folder:
        session = open_session(graph, threads, profile=Path(folder) / "profile")
        for feed in [*feeds, *feeds]:
            session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))

    times = stage_times(events, uncounted=len(feeds))
    total = sum(times.values())
    return {stage: times[stage] / total for stage in STAGES} if total else None


def stage_times(events: Sequence[Mapping[str, Any]], uncounted: int = 0) -> dict[str, int]:
    """Microseconds of each stage in a profile, the first `uncounted` runs left out.

    ONNX Runtime may join nodes into a nameless one when it opens a graph. Such a node counts towards the stage of the
    node that ran before it; all are nameless in a graph that was not exported with stages, and count nowhere.
    """
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    times = dict.fromkeys(STAGES, 0)
    stage = None

    for event in sorted(events, key=lambda event: event["ts"]):
        if not event["name"].endswith(KERNEL) or event["ts"] < starts[uncounted]:
            continue

        prefix = event["name"].partition("/")[0]
        stage = prefix if prefix in times else stage
        if stage is not None:
            times[stage] += event["dur"]

    return times

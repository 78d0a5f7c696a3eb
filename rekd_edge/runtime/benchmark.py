"""What `rekd-edge bench` measures: a bundle, and baselines beside it in the same process on the same inputs."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rekd_edge.errors import FailureError, InputError
from rekd_edge.methods import METHODS
from rekd_edge.models import find_bundle
from rekd_edge.process import isolated_imports, python_command
from rekd_edge.runtime.border import MAX_THREADS, in_short
from rekd_edge.runtime.bundle import LAYOUT, Manifest
from rekd_edge.runtime.graph import check_graph_file
from rekd_edge.runtime.profiling import stage_shares
from rekd_edge.runtime.rationalizer import Rationalizer
from rekd_edge.runtime.session import open_session
from rekd_edge.runtime.text import allowed_tokens, limit_tokenizer, pad_ids

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    Batch = dict[str, NDArray[Any]]
    Progress = Callable[[int, int], None]

__all__ = ["BenchSettings", "run_benchmark"]

GENERATED_BATCHES = 8
PREPROCESSED = 64
CHECKED = ("precision", "verified", "quantization", "invariance")
SEED = 2026
LARGEST = {
    "threads": MAX_THREADS,
    "batch_size": 1024,
    "tokens": 65_536,
    "repeats": 1_000_000,
    "warm_up": 1_000_000,
    "cold_starts": 1000,
}
"""Bounds of the settings: above them a slip of the finger would take the machine's memory, or the day."""
# The child opens the bundle as a user's program would, predicts once, and reports its own peak memory.
COLD_START = """
import sys
from rekd_edge import Rationalizer
rationalizer = Rationalizer.load(sys.argv[1], threads=int(sys.argv[2]))
if rationalizer.manifest.text:
    rationalizer(sys.argv[3])
else:
    import numpy
    height, width = rationalizer.manifest.image.height, rationalizer.manifest.image.width
    rationalizer(numpy.zeros((height, width, 3), numpy.uint8))
from rekd_edge.runtime.memory import peak_memory
print(peak_memory() or 0, flush=True)
"""
COLD_TEXT = "An absolute delight from the first scene to the last. " * 8


@dataclass(frozen=True)
class BenchSettings:
    """How to measure.

    `threads` is all available cores by default; `tokens` is the length of generated texts and the limit of given
    ones, special tokens included (the bundle's maximum by default); `repeats` counts timed runs of each system.

    Raises:
        InputError: a value is below 1 (`cold_starts`: below 0) or above `LARGEST`.
    """

    threads: int | None = None
    batch_size: int = 1
    tokens: int | None = None
    repeats: int = 100
    warm_up: int = 5
    cold_starts: int = 5

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            value, smallest = getattr(self, name), 0 if name == "cold_starts" else 1
            if value is not None and not smallest <= value <= largest:
                raise InputError(f"{name} is {value}; give a number from {smallest} to {largest}.")


def run_benchmark(
    bundle: Path,
    settings: BenchSettings,
    *,
    inputs: Sequence[Any] | None = None,
    baselines: Sequence[Path] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a bundle and its baselines, run by run in turn, and the bundle's start in fresh processes.

    Times are those of the graph on ready arrays; `preprocess_ms` is what a row takes before that, and `shares` how the
    graph's time divides among generator, gather and predictor, by a session of its own with ONNX Runtime's profiler
    (null where the graph was exported without stages). The cold start is the whole way, from starting Python to the
    first prediction. Memory is the peak resident size of that fresh process. `checked` repeats what the manifest says
    of int8 and invariance.

    Args:
        inputs: texts or images to run on; random tokens or pixels by default.
        baselines: bundles, folders written by Optimum, or ONNX files that take the same inputs.
        progress: called with (runs done, runs in all).

    Returns:
        The document of `rekd-edge bench --json`; `ratio` is ours over the baseline's, at p50.

    Raises:
        InputError: a bundle, baseline or input cannot be used.
        FailureError: the fresh process failed.
    """
    threads = settings.threads or _available_cores()
    bundle = find_bundle(bundle)
    rationalizer = Rationalizer.load(bundle, threads=threads)

    manifest = rationalizer.manifest
    if manifest.text:
        _limit_tokens(rationalizer, settings.tokens or manifest.text.max_length)

    batches, sources = _batches(rationalizer, inputs, settings)
    graphs = [_baseline_graph(path) for path in baselines]
    sessions = [rationalizer.session, *(open_session(graph, threads) for graph in graphs)]

    feeds = [[_feed(session, batch) for batch in batches] for session in sessions]
    for session, graph, feed in zip(sessions, [bundle / LAYOUT.graph, *graphs], feeds, strict=True):
        _warm_up(session, feed, settings.warm_up, graph)

    latencies = _interleaved(sessions, feeds, settings.repeats, progress)
    cold_start, peak = _cold_start(bundle, threads, settings.cold_starts)
    files = manifest.fields["files"]
    method = METHODS.get(manifest.fields["method"])
    selects = method is None or method.selects
    ours, *theirs = [_summary(times, settings.batch_size) for times in latencies]

    return {
        "threads": threads,
        "batch_size": settings.batch_size,
        "tokens": _tokens_per_row(batches, manifest),
        "rationale_ratio": _rationale_ratio(rationalizer, batches),
        "target_ratio": manifest.fields.get("target_ratio") if selects else None,
        **ours,
        "shares": stage_shares(bundle / LAYOUT.graph, batches, threads),
        "preprocess_ms": _preprocess_ms(rationalizer, sources),
        "size_bytes": sum(path.stat().st_size for path in _files(bundle, files)),
        "graph_bytes": files[LAYOUT.graph]["size"],
        "peak_memory_bytes": peak,
        "cold_start_s": cold_start,
        "checked": {name: manifest.fields[name] for name in CHECKED if manifest.fields.get(name) is not None},
        "baselines": [
            {
                "name": path.name,
                **summary,
                "graph_bytes": _graph_bytes(graph),
                "ratio": ours["latency_ms"]["p50"] / summary["latency_ms"]["p50"],
            }
            for path, graph, summary in zip(baselines, graphs, theirs, strict=True)
        ],
    }


def _files(bundle: Path, listed: Iterable[str]) -> list[Path]:
    """What a bundle consists of: the listed files and those that stand for the manifest."""
    return [bundle / name for name in (*listed, *LAYOUT.unlisted) if (bundle / name).is_file()]


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limit_tokens(rationalizer: Rationalizer, tokens: int) -> None:
    """Let the bundle read no more than so many tokens, special tokens included."""
    assert rationalizer.manifest.text is not None
    assert rationalizer.tokenizer is not None
    longest = rationalizer.manifest.text.max_length
    if tokens > longest:
        raise InputError(f"The bundle reads {longest} tokens at most; give no more than that.")
    limit_tokenizer(rationalizer.tokenizer, tokens)


def _batches(
    rationalizer: Rationalizer, inputs: Sequence[Any] | None, settings: BenchSettings
) -> tuple[list[Batch], list[Any]]:
    """The arrays of all systems, `batch_size` rows each, and the texts or images behind them.

    Given inputs are repeated to fill the last batch. Generated rows hold as many tokens as are allowed; their texts
    read about so.
    """
    size = settings.batch_size
    if inputs is not None:
        if len(inputs) == 0:
            raise InputError("There is nothing to measure on; give at least one input.")
        # no more than the timed runs can use
        sources = [inputs[index] for index in range(min(len(inputs), size * settings.repeats))]
    elif rationalizer.manifest.text:
        rows = _random_rows(rationalizer, size * GENERATED_BATCHES)
        assert rationalizer.tokenizer is not None
        padded = [pad_ids(chunk, rationalizer.manifest.text.pad_token_id) for chunk in _chunks(rows, size)]
        batches = [{"input_ids": ids, "attention_mask": attention} for ids, attention in padded]
        return batches, rationalizer.tokenizer.decode_batch(rows)
    else:
        sources = _random_images(rationalizer, size * GENERATED_BATCHES)

    return [rationalizer.prepare(chunk) for chunk in _chunks(sources, size)], sources


def _random_rows(rationalizer: Rationalizer, count: int) -> list[list[int]]:
    """Rows of as many ids as the tokenizer allows: random ones between the special tokens."""
    tokenizer, text = rationalizer.tokenizer, rationalizer.manifest.text
    assert tokenizer is not None
    assert text is not None
    specials = tokenizer.encode("").ids
    pool = sorted(set(tokenizer.get_vocab().values()) - set(text.special_token_ids))
    free = allowed_tokens(tokenizer) - len(specials)
    middle = np.random.default_rng(SEED).choice(np.array(pool), size=(count, free)).tolist()
    half = len(specials) // 2

    return [specials[:half] + row + specials[half:] for row in middle]


def _random_images(rationalizer: Rationalizer, count: int) -> list[Any]:
    """Arrays of random pixels, [height, width, 3]."""
    image = rationalizer.manifest.image
    assert image is not None
    return list(np.random.default_rng(SEED).integers(0, 256, (count, image.height, image.width, 3), dtype=np.uint8))


def _preprocess_ms(rationalizer: Rationalizer, sources: Sequence[Any]) -> float:
    """Median milliseconds from one text or image to the graph's arrays."""
    times = []
    for source in sources[:PREPROCESSED]:
        start = time.perf_counter()
        rationalizer.prepare([source])
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def _chunks(rows: list[Any], size: int) -> list[list[Any]]:
    count = -(-len(rows) // size)
    return [[rows[(start * size + offset) % len(rows)] for offset in range(size)] for start in range(count)]


def _baseline_graph(path: Path) -> Path:
    """The ONNX file of a baseline: the file itself, a bundle's, or the one in a folder written by Optimum."""
    if path.is_file() and path.suffix == ".onnx":
        check_graph_file(path, external_data=True)
        return path

    if (path / LAYOUT.manifest).is_file():
        Manifest.load(path)
        check_graph_file(path / LAYOUT.graph)
        return path / LAYOUT.graph

    graphs = sorted(path.glob("*.onnx"))
    if not (path / "config.json").is_file() or not graphs:
        raise InputError(f"{path} is no baseline; give a bundle, or a folder that Optimum wrote (config.json, *.onnx).")

    if len(graphs) > 1:
        names = ", ".join(graph.name for graph in graphs)
        raise InputError(f"{path} holds several graphs ({names}); give the path of one of them.")

    check_graph_file(graphs[0], external_data=True)
    return graphs[0]


def _graph_bytes(graph: Path) -> int:
    """Size of a graph with the weights that lie beside it, if any."""
    beside = [graph.with_name(graph.name + suffix) for suffix in ("_data", ".data")]
    return graph.stat().st_size + sum(path.stat().st_size for path in beside if path.is_file())


def _feed(session: InferenceSession, batch: Batch) -> Batch:
    """The part of a batch that a graph asks for; `token_type_ids` are zeros."""
    feed: Batch = {}
    for name in [value.name for value in session.get_inputs()]:
        if name in batch:
            feed[name] = batch[name]
        elif name == "token_type_ids" and "input_ids" in batch:
            feed[name] = np.zeros_like(batch["input_ids"])
        else:
            raise InputError(f"A baseline asks for {name!r}, which the bundle's inputs lack; choose another baseline.")

    return feed


def _warm_up(session: InferenceSession, feeds: Sequence[Batch], runs: int, graph: Path) -> None:
    """Run every batch at least once: each new length makes ONNX Runtime allocate, and a misfit shows before timing."""
    try:
        for run in range(max(runs, len(feeds))):
            session.run(None, feeds[run % len(feeds)])
    except Exception as error:  # a smaller vocabulary, another image size
        reason = in_short(error)
        raise InputError(f"{graph} cannot run the bundle's inputs ({reason}); choose another baseline.") from error


def _interleaved(
    sessions: Sequence[InferenceSession],
    feeds: Sequence[Sequence[Mapping[str, NDArray[Any]]]],
    repeats: int,
    progress: Progress | None,
) -> list[list[float]]:
    """Seconds of every run, `[systems][repeats]`; the systems take turns, and the first place moves on each time."""
    times: list[list[float]] = [[] for _ in sessions]
    for repeat in range(repeats):
        for place in range(len(sessions)):
            system = (repeat + place) % len(sessions)
            feed = feeds[system][repeat % len(feeds[system])]
            start = time.perf_counter()
            sessions[system].run(None, feed)
            times[system].append(time.perf_counter() - start)

        if progress:
            progress(repeat + 1, repeats)

    return times


def _summary(times: Sequence[float], batch_size: int) -> dict[str, Any]:
    p50, p95 = np.percentile(times, [50, 95]) * 1000
    return {
        "latency_ms": {"p50": float(p50), "p95": float(p95)},
        "throughput_per_s": batch_size * len(times) / sum(times),
    }


def _rationale_ratio(rationalizer: Rationalizer, batches: Sequence[Batch]) -> float:
    """Mean of |M| / L over the rows that were measured."""
    ratios: list[float] = []
    text = rationalizer.manifest.text

    for batch in batches:
        mask = rationalizer.run(batch)["rationale_mask"]
        feature = np.ones_like(mask)
        if text:
            feature = (batch["attention_mask"] == 1) & ~np.isin(batch["input_ids"], text.special_token_ids)
        ratios += (mask.sum(axis=1) / np.maximum(feature.sum(axis=1), 1)).tolist()

    return statistics.fmean(ratios)


def _tokens_per_row(batches: Sequence[Batch], manifest: Manifest) -> int:
    """Tokens a row on average (special tokens included), or patches of an image."""
    if manifest.image:
        rows, columns = manifest.image.grid
        return rows * columns
    return round(statistics.fmean(float(batch["attention_mask"].sum(axis=1).mean()) for batch in batches))


def _cold_start(bundle: Path, threads: int, runs: int) -> tuple[float | None, int | None]:
    """Median seconds from starting Python to the first prediction, and the median peak memory in bytes."""
    command = [*python_command(COLD_START), str(bundle), str(threads), COLD_TEXT]
    environment = os.environ | isolated_imports()
    seconds: list[float] = []
    peaks: list[int] = []

    for _ in range(runs):
        start = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as child:
            assert child.stdout is not None
            peak = child.stdout.readline()
            seconds.append(time.perf_counter() - start)
            _, errors = child.communicate()

        if child.returncode or not peak:
            last = (errors.strip().splitlines() or ["no message"])[-1]
            raise FailureError(f"A fresh process could not predict with {bundle} ({last}).")

        peaks.append(int(peak))

    if not runs:
        return None, None

    return statistics.median(seconds), round(statistics.median(peaks)) or None

"""Predict whole Parquet files: one output row per input row, in order, resumable, in one process or many."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekd_edge.engines import EngineSettings, Task, check_engine, run_tasks
from rekd_edge.errors import FailureError, InputError
from rekd_edge.files import locked
from rekd_edge.progress import say, steps
from rekd_edge.runtime.border import check_threads

if TYPE_CHECKING:
    from rekd_edge.bulk.inputs import InputFile
    from rekd_edge.bulk.ranges import Plan, RowRange

__all__ = ["ROWS_PER_TASK", "predict_files"]

ROWS_PER_TASK = 10_000
"""Larger files are divided, smaller ones share a task. A killed call repeats at most this many rows per worker."""
LOCAL = EngineSettings()


def predict_files(
    bundle: Path,
    source: Path,
    output: Path,
    engine: EngineSettings = LOCAL,
    *,
    text_column: str | None = None,
    image_column: str | None = None,
    threads: int = 1,
    rows_per_task: int = ROWS_PER_TASK,
) -> dict[str, Any]:
    """Predict a Parquet file, or every one in a folder, into files of the same names under `output`.

    An output file has the input's columns (`input_NAME` if a name is taken; for images only their path, if there is
    one), the fields of the prediction, and `error`, which is null for predicted rows. A row that cannot be predicted,
    even one that kills its process, gets an error and does not fail the call. Finished files are kept when the same
    call is made again.

    Args:
        bundle: a bundle of texts or images.
        source: Parquet file or folder.
        output: a folder, new or from an earlier call.
        engine: where the work is done; on a cluster the three paths must mean the same on every node.
        text_column: found by its name if not given.
        image_column: likewise; bytes of image files, a struct `{bytes, path}`, or paths, relative to the Parquet file.
        threads: of each worker.
        rows_per_task: how many rows a worker takes at a time.

    Returns:
        `rows`, `files` and `errors` (rows without a prediction) of the whole output; of this call `predicted` (rows),
        `seconds` and `rows_per_s`.

    Raises:
        InputError: a path, a column, the bundle or the engine cannot be used, the output belongs to other work, a
            folder in it is a link, or another call writes to it.
        FailureError: some files could not be predicted; the others are written.
    """
    try:
        import filelock  # noqa: F401
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(
            'Parquet files are read with pyarrow; install it with: pip install "rekd-edge[bulk]".'
        ) from error

    check_engine(engine)
    check_threads(threads)

    if rows_per_task < 1:
        raise InputError(f"rows_per_task must be at least 1, not {rows_per_task}.")

    from rekd_edge.bulk.inputs import find_inputs

    begin = time.perf_counter()
    bundle, source, output = bundle.resolve(), source.resolve(), output.resolve()
    files = find_inputs(bundle, source, output, text_column, image_column)

    with locked(output):
        return _predict(bundle, files, output, engine, threads, rows_per_task, begin)


def _predict(
    bundle: Path,
    files: list[InputFile],
    output: Path,
    engine: EngineSettings,
    threads: int,
    rows_per_task: int,
    begin: float,
) -> dict[str, Any]:
    """As `predict_files`, for checked files, with the output locked."""
    from rekd_edge.bulk.ranges import Plan

    plan = Plan.of(files, output, rows_per_task)

    errors = _run(plan, bundle, engine, threads, begin)
    if errors:
        raise FailureError(f"{errors[0]} What else could be predicted is kept; the same command goes on from there.")

    plan.finish()

    seconds = time.perf_counter() - begin
    return {
        "rows": plan.rows,
        "files": len(plan.files),
        "errors": plan.rows_with_errors(),
        "predicted": plan.rows_to_do,
        "seconds": round(seconds, 3),
        "rows_per_s": round(plan.rows_to_do / seconds, 1),
    }


def _run(plan: Plan, bundle: Path, engine: EngineSettings, threads: int, begin: float) -> list[str]:
    """Run the tasks of a plan, and rerun those whose process died at a row that can be skipped.

    Returns:
        One sentence for each failure.
    """
    if not plan.groups and not plan.divided:
        say(f"Nothing to do: all {plan.rows} rows of {len(plan.files)} files are predicted already.")
        return []

    groups = {str(group[0]): group for group in plan.groups}
    joins = dict(plan.divided)
    errors: list[str] = []
    unjoined: list[str] = []
    predicted = 0

    with steps("predict") as step:
        step(plan.rows - plan.rows_to_do, plan.rows)
        while groups or joins:
            set_aside = {name: _rows_set_aside(group) for name, group in groups.items()}
            again: dict[str, list[RowRange]] = {}
            unjoined.clear()

            with closing(run_tasks(_tasks(bundle, groups, joins, threads), engine)) as outcomes:
                for outcome in outcomes:
                    name = outcome.task.name
                    if name not in groups:
                        unjoined += [outcome.error] if outcome.error is not None else []
                    elif outcome.lost and _rows_set_aside(groups[name]) > set_aside[name]:
                        again[name] = groups[name]
                    elif outcome.error is not None:
                        errors.append(f"{name}: {outcome.error}")
                    else:
                        errors += outcome.value
                        predicted += sum(part.rows for part in groups[name])
                        speed = predicted / (time.perf_counter() - begin)
                        step(plan.rows - plan.rows_to_do + predicted, plan.rows, f"rows, {speed:.0f} rows/s")

            groups = again
            joins = {file: parts for file, parts in joins.items() if again and not file.target.exists()}

    return errors + unjoined


def _rows_set_aside(group: list[RowRange]) -> int:
    from rekd_edge.bulk.crashes import fatal_rows

    return sum(len(fatal_rows(part.crash_record)) for part in group)


def _tasks(
    bundle: Path, groups: dict[str, list[RowRange]], joins: dict[InputFile, list[RowRange]], threads: int
) -> list[Task]:
    """One task per group, and one to join each divided file after the groups that hold its ranges."""
    from rekd_edge.bulk.ranges import join_ranges, predict_ranges

    home = {part: name for name, group in groups.items() for part in group}
    tasks = [Task(name, predict_ranges, (bundle, group, threads), cpus=threads) for name, group in groups.items()]

    for file, parts in joins.items():
        needs = tuple(dict.fromkeys(home[part] for part in parts if part in home))
        tasks.append(Task(f"{file.name} whole", join_ranges, (file, parts), needs=needs))

    return tasks

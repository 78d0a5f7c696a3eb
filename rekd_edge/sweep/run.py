"""`rekd-edge sweep`: perform a grid's runs on an engine, and write the table of the finished ones after each."""

from __future__ import annotations

import json
import math
import os
import shlex
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rekd_edge.engines import EngineSettings, Task, check_engine, run_tasks
from rekd_edge.errors import InputError
from rekd_edge.files import check_place, locked, read_json, real_folder, write_json, write_text
from rekd_edge.methods import METHODS
from rekd_edge.progress import say
from rekd_edge.sweep.display import Board
from rekd_edge.sweep.perform import (
    ERROR,
    RUNS,
    Resolver,
    labels,
    perform,
    place_name,
    read_result,
    unknown_folders,
)
from rekd_edge.sweep.plan import Run, closure, expand
from rekd_edge.sweep.plots import draw
from rekd_edge.sweep.rendering import as_markdown
from rekd_edge.sweep.rows import Grid
from rekd_edge.sweep.table import published, summarised
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.control import controls_of
from rekd_edge.versions import processor, versions

__all__ = ["command_of", "describe", "run_sweep"]

TABLE, MARKDOWN = "table.json", "table.md"
PACKAGES = ("torch", "transformers", "numpy", "tokenizers")
_DRAW_SECONDS = 20.0
"""Plots are drawn at most this often while the sweep runs."""


def run_sweep(
    grid: Grid,
    folder: Path,
    engine: EngineSettings,
    retry: bool = False,
    gpus: float | None = None,
    command: str = "rekd-edge sweep",
) -> dict[str, Any]:
    """Train and measure the missing runs of a grid, and write `table.json`, `table.md` and plots after every run.

    A run is known by the fingerprint of its settings, data and teacher. Finished runs are left as they are, and failed
    ones are tried again only with `retry`. A failed run stops the runs that need it, and no others.

    Args:
        grid: what to train.
        folder: the sweep's folder, new or from an earlier call.
        engine: where the runs are performed.
        retry: try failed runs again.
        gpus: share of a GPU for each run; by default this machine's GPUs over its workers, at most one, and one GPU on
            a cluster that has any.
        command: the command that the table records.

    Returns:
        What `table.json` holds.

    Raises:
        InputError: the grid's settings, data or backbones cannot be used, the folder is taken, or another call
            writes to it.
    """
    check_engine(engine)
    plan = expand(grid)
    folder = folder.resolve()
    _check_folder(folder)
    resolver = Resolver(plan, folder)

    for name in plan:
        resolver(name)  # checks data and backbones before anything is written

    with locked(folder):
        real_folder(folder / RUNS)
        _take_over(plan, resolver)
        sweep = _Sweep(grid, plan, folder, resolver, command)
        sweep.perform(engine, retry, gpus)
        sweep.write(pictures=True)

    left = unknown_folders(folder, sweep.folders.values())
    if left:
        names = ", ".join(path.name for path in left[:3]) + (", …" if len(left) > 3 else "")
        say(f"{len(left)} run{'s' * (len(left) > 1)} of another grid or settings stay in {folder / RUNS}: {names}")

    return sweep.document()


def _check_folder(folder: Path) -> None:
    check_place(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RUNS).is_dir():
        raise InputError(f"{folder} is not empty and holds no sweep; give --output a new folder.")


def _take_over(plan: dict[str, Run], resolver: Resolver) -> None:
    """Rename finished runs to this grid's names: rows may have been renamed, or shared with another grid."""
    for name in plan:
        run = resolver(name)
        if run is None or run.folder.exists():
            continue

        digest = run.folder.name.rpartition("-")[2]
        for twin in sorted(run.folder.parent.glob(f"*-{digest}")):
            named = any(twin == other.folder for other in map(resolver, plan) if other is not None)
            if not named and read_result(twin) is not None:
                twin.rename(run.folder)
                break


@dataclass
class _Sweep:
    grid: Grid
    plan: dict[str, Run]
    folder: Path
    resolver: Resolver
    command: str

    def __post_init__(self) -> None:
        self.folders: dict[str, Path] = {}
        self.results: dict[str, dict[str, Any]] = {}
        self.errors: dict[str, str] = {}
        self._drawn = time.monotonic()
        self._can_draw = True

    def perform(self, engine: EngineSettings, retry: bool, gpus: float | None) -> None:
        """Perform the runs that are neither finished nor failed."""
        missing = [name for name in self.plan if not self._settled(name, retry)]
        finished, failed = len(self.results), len(self.errors)
        if finished or failed:
            say(f"{finished} of {len(self.plan)} runs are finished already" + (f", {failed} failed" if failed else ""))
        if not missing:
            return

        self.write()
        share = _gpu_share(engine) if gpus is None else gpus
        tasks = [self._task(name, set(missing), share) for name in missing]
        board = Board({name: self._cost(name) for name in missing}, finished, failed)

        outcomes = run_tasks(tasks, engine, lambda task: board.started(task.name, self._folder(task.name)))
        with board.shown(), _closing(outcomes):
            for outcome in outcomes:
                name = outcome.task.name
                folder = self._folder(name)

                if outcome.error is None:
                    self.results[name] = outcome.value
                    note = _figures_of(outcome.value)
                else:
                    self.errors[name], note = outcome.error, ""
                    if folder is not None and folder.is_dir() and not (folder / ERROR).is_file():  # lost too often
                        write_json(folder / ERROR, {"error": outcome.error})

                board.ended(name, outcome.error, note)
                self.write()

    def _settled(self, name: str, retry: bool) -> bool:
        """Whether a run is finished, failed before, or needs a failed one; remembers which."""
        failed = next((need for need in self.plan[name].needs if need in self.errors), None)
        if failed is not None:
            self.errors[name] = f"It needs {failed}, which failed."
            return True

        folder = self._folder(name)
        if folder is None:
            return False

        if (row := read_result(folder, self.plan[name].tunes)) is not None:
            self.results[name] = row
        elif (folder / ERROR).is_file() and not retry:
            self.errors[name] = str(read_json(folder / ERROR)["error"])
        else:
            return False

        return True

    def _folder(self, name: str) -> Path | None:
        resolved = self.resolver(name)
        if resolved is not None:
            self.folders[name] = resolved.folder
        return None if resolved is None else resolved.folder

    def _task(self, name: str, missing: set[str], gpus: float | None) -> Task:
        run = self.plan[name]
        needs = tuple(need for need in run.needs if need in missing)
        arguments = (name, closure(name, self.plan), str(self.folder))
        return Task(name, perform, arguments, needs, 1 + self._config(name).workers, gpus)

    def _config(self, name: str) -> TrainingConfig:
        resolved = self.resolver(name)
        run = self.plan[name]
        return run.config(run.teacher, run.control, {}) if resolved is None else resolved.config

    def _cost(self, name: str) -> float:
        """Epochs, counted twice if a generator is trained too."""
        config, method = self._config(name), METHODS[self.plan[name].method]
        if self.plan[name].trains_controls:
            return float(sum(control.config.epochs or 0 for control in controls_of(config)))
        return float((config.epochs or method.epochs) * (2 if method.selects else 1))

    def write(self, pictures: bool = False) -> None:
        """Write the table of the finished runs."""
        document = self.document()
        write_json(self.folder / TABLE, document)
        write_text(self.folder / MARKDOWN, as_markdown(document))

        if self._can_draw and (pictures or time.monotonic() - self._drawn > _DRAW_SECONDS):
            try:
                draw(self.grid, document["table"], self.folder)
            except ModuleNotFoundError:
                self._can_draw = False
                say('There are no pictures without matplotlib; install it with pip install "rekd-edge[sweep]".')

            self._drawn = time.monotonic()

    def document(self) -> dict[str, Any]:
        """The content of `table.json`, whatever the engine, the order and the number of workers."""
        controls = [run.name for run in self.plan.values() if run.trains_controls]
        order = [run.name for run in self._in_order() if run.name not in controls]
        return {
            "benchmark": f"sweep-{self.grid.name}",
            "command": self.command,
            "environment": {**processor(), "threads": 1, **versions(*PACKAGES)},
            "title": self.grid.title,
            "source": self.grid.source,
            "table": summarised(self.grid, self.plan, self.results),
            "published": published(self.grid),
            "failed": [
                {"run": name, "error": self.errors[name].replace(f"{self.folder}{os.sep}", "")}
                for name in sorted(self.errors)
            ],
            "rows": [self._row(name) for name in order + sorted(controls) if name in self.results],
        }

    def _row(self, name: str) -> dict[str, Any]:
        """A result under the names of this grid, though it may have been made for another."""
        resolved = self.resolver(name)
        assert resolved is not None
        return self.results[name] | labels(self.plan[name], resolved)

    def _in_order(self) -> list[Run]:
        """Runs in the order of the table, then by seed."""
        places: dict[Any, int] = {}
        for row in self.grid.rows.values():
            for name in row.variants:
                for values in row.lines(name):
                    places[row.name, name, values] = len(places)

        return sorted(
            self.plan.values(), key=lambda run: (places.get((run.row, run.line, run.values), len(places)), run.seed)
        )


def _figures_of(row: dict[str, Any]) -> str:
    """The figures of a run in the line that is printed when it ends."""
    if row["accuracy"] is None:
        return f"dev accuracy {row['dev_accuracy']:.3f}  ratio {row['dev_rationale_ratio']:.1%}"
    return f"accuracy {row['accuracy']:.3f}  ratio {row['rationale_ratio']:.1%}"


def _gpu_share(engine: EngineSettings) -> float | None:
    """The share of a GPU for each run: a whole one, or less if there are more workers than GPUs."""
    if engine.address is not None:
        return None
    here = torch.cuda.device_count()
    return 1 / math.ceil(engine.workers / here) if engine.workers and here else float(min(1, here))


@contextmanager
def _closing(outcomes: Iterator[Any]) -> Iterator[None]:
    """Stop the engine's tasks however the sweep ends."""
    try:
        yield
    finally:
        if isinstance(outcomes, Generator):
            outcomes.close()


def describe(grid: Grid) -> list[str]:
    """One line per run: its name, the settings in which runs differ, and the runs that it needs."""
    plan = expand(grid)
    every = [run.settings for run in plan.values()]
    lines = []

    for run in plan.values():
        own = {
            key: value for key, value in run.settings.items() if any(other.get(key, _NONE) != value for other in every)
        }
        words = [
            f"{key}={json.dumps(value) if isinstance(value, bool | None) else value}" for key, value in own.items()
        ]
        words += [
            f"{', '.join(key for key, _ in choice.candidates[0][0])} as {choice.row} picks" for choice in run.choices
        ]
        named = [need for need in (run.teacher, run.control) if need not in (None, "train")]
        picked = sum(len(runs) for choice in run.choices for _, runs in choice.candidates)
        named += [f"{picked} tuning runs"] if picked else []
        needs = f"  (needs {', '.join(str(need) for need in named)})" if named else ""
        lines.append(f"{run.name}  {' '.join(words)}{needs}")

    return lines


_NONE = object()


def command_of(grid: str, settings: dict[str, str], seeds: int | None) -> str:
    """The command of a table, with the last part of local paths; engine and output are left out."""
    words = ["rekd-edge", "sweep", Path(grid).name]
    words += [] if seeds is None else ["--seeds", str(seeds)]
    for key, value in settings.items():
        words += ["--set", f"{key}={place_name(value)}"]
    return " ".join(shlex.quote(word) for word in words)

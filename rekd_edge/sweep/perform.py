"""One run of a sweep, in whatever process: resolve, fingerprint, train, measure, record.

A run's folder is `runs/NAME-DIGEST`, with the digest of its fingerprint: other settings have another folder, and a
finished run is never trained again. Beside the run's own files it holds `progress.json` while it is trained,
`result.json` once it is measured, or `error.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from transformers import TrainerCallback

from rekd_edge.data import DataSettings, load_data
from rekd_edge.errors import FailureError, RekdEdgeError
from rekd_edge.evaluate import evaluate
from rekd_edge.files import locked, read_json, sha256_of, staged_folder, write_json
from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleConfig
from rekd_edge.modeling.encoders.backbones import backbone_config
from rekd_edge.runs import RunFolder, restate, source_digests
from rekd_edge.runs.layout import TARGETS
from rekd_edge.sweep.plan import Choice, Run
from rekd_edge.training.configuration import Process, TrainingConfig
from rekd_edge.training.control import WARM, compare, controls_of, counting_control
from rekd_edge.training.run import train, train_controls

__all__ = [
    "ERROR",
    "PROGRESS",
    "RESULT",
    "RUNS",
    "Resolved",
    "Resolver",
    "labels",
    "perform",
    "place_name",
    "rank_of_pick",
    "read_result",
]

FORMAT = 3
"""Raised whenever the same settings begin to give another result."""
RUNS = "runs"
PROGRESS, RESULT, ERROR = "progress.json", "result.json", "error.json"
RATIO_TOLERANCE = 0.01
"""How far a rationale ratio may be from its target for its settings to be picked (appendix C.1 of the paper)."""
_REPORT_SECONDS = 0.5


@dataclass(frozen=True)
class Resolved:
    """A run whose settings are all known."""

    config: TrainingConfig
    fingerprint: str
    folder: Path
    picked: dict[str, Any]
    """The settings that tuning rows decided."""


class Resolver:
    """Settings, fingerprint and folder of every run of a plan.

    Args:
        plan: runs by name, with all that they need.
        folder: the sweep's, absolute.
    """

    def __init__(self, plan: dict[str, Run], folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self._known: dict[str, Resolved] = {}

    def __call__(self, name: str) -> Resolved | None:
        """Resolve a run; None while a tuning run that its settings depend on is unfinished.

        Raises:
            InputError: its settings, data or backbone cannot be used.
        """
        if name in self._known:
            return self._known[name]

        run = self.plan[name]
        picked: dict[str, Any] = {}

        for choice in run.choices:
            values = self.pick(choice)
            if values is None:
                return None
            picked |= values

        teacher = None if run.teacher is None else self(run.teacher)
        own = run.control in (None, "train")

        control = None if own else self(run.control or "")
        if (run.teacher and teacher is None) or (not own and control is None):
            return None

        config = run.config(
            None if teacher is None else str(teacher.folder),
            run.control if control is None else str(control.folder),
            picked,
        )
        facts = _facts(run, config) | {
            "format": FORMAT,
            "content": data_fingerprint(config.spec, config.data),
            "encoder": backbone_fingerprint(config.backbone),
            "taught by": teacher and teacher.fingerprint,
            "beside": control.fingerprint if control is not None else _beside(run, config),
        }
        fingerprint = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        resolved = Resolved(config, fingerprint, self.folder / RUNS / f"{name}-{fingerprint[:8]}", picked)
        self._known[name] = resolved

        return resolved

    def pick(self, choice: Choice) -> dict[str, Any] | None:
        """The values with the lowest mean dev loss, among those on target if there are any; None until all ran."""
        ranked = []
        for values, names in choice.candidates:
            results = [self.result(name) for name in names]
            rows = [row for row in results if row is not None]
            if len(rows) < len(results):
                return None
            ranked.append((*rank_of_pick(rows), values))

        return dict(min(ranked, key=lambda entry: entry[:2])[2])

    def result(self, name: str) -> dict[str, Any] | None:
        """The row of a finished run."""
        resolved = self(name)
        return None if resolved is None else read_result(resolved.folder, self.plan[name].tunes)


def _facts(run: Run, config: TrainingConfig) -> dict[str, Any]:
    """The settings that a run's figures depend on."""
    return {"controls": _identities(config)} if run.trains_controls else config.identity()


def _beside(run: Run, config: TrainingConfig) -> Any:
    """Identity of the controls that a run trains for itself; None if it trains none."""
    return _identities(config) if run.control == "train" and not run.trains_controls else None


def _identities(config: TrainingConfig) -> list[Any]:
    """The identities of a run's controls."""
    return [[control.name, control.start, control.config.identity()] for control in controls_of(config)]


def rank_of_pick(rows: Sequence[dict[str, Any]]) -> tuple[bool, float]:
    """The sort key of a candidate of a tuning row, of which the lowest is picked.

    First whether the mean ratio of its runs misses the target, then their mean dev loss, or minus their mean dev
    accuracy where `select_by` says so.
    """
    off = abs(mean(row["dev_rationale_ratio"] - row["target_ratio"] for row in rows))
    if rows[0].get("select_by") == "accuracy":
        return off > RATIO_TOLERANCE, -mean(row["dev_accuracy"] for row in rows)
    return off > RATIO_TOLERANCE, mean(row["dev_loss"] for row in rows)


def read_result(folder: Path, tunes: bool = False) -> dict[str, Any] | None:
    """The row of a run folder; None if it is unfinished, or should be measured on test (not `tunes`) and was not."""
    row = read_json(folder / RESULT) if (folder / RESULT).is_file() else None
    return None if row is not None and row["accuracy"] is None and not tunes else row


@lru_cache(maxsize=64)
def data_fingerprint(spec: str, settings: DataSettings) -> str:
    """Identity of the data of training and evaluation.

    Raises:
        InputError: the data cannot be used, or has no test split.
    """
    data = load_data(spec, settings)
    data.split("test")
    return data.fingerprint


@lru_cache(maxsize=64)
def backbone_fingerprint(name: str) -> str:
    """Identity of a backbone: a hub's name, or names and SHA-256 of a local folder's files.

    Raises:
        InputError: it cannot be read.
    """
    backbone_config(name)
    family, parted, place = name.rpartition(":")

    folder = Path(place if Path(place).is_dir() else name)
    if not folder.is_dir():
        return name

    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors", ".bin", ".txt")]
    return json.dumps([family + parted, [(path.name, sha256_of(path)) for path in files]])


def perform(name: str, plan: dict[str, Run], folder: str) -> dict[str, Any]:
    """Train and measure one run unless it is finished; an interrupted run resumes from its last checkpoint.

    Args:
        name: of the run.
        plan: it and all that it needs, finished.
        folder: the sweep's, absolute, and the same for all workers.

    Returns:
        Its row.

    Raises:
        InputError, FailureError: as `train` and `evaluate`; `error.json` says the same, with the traceback.
    """
    torch.set_num_threads(1)  # figures must not depend on how many processors a worker has
    resolved = Resolver(plan, Path(folder))(name)
    if resolved is None:
        raise FailureError(f"{name} was started before what it needs; report this.")

    run = resolved.folder
    # a worker of an interrupted sweep may still be running; identical runs wait for the first of them
    with locked(run.with_name(_digest(run)), wait=True):
        if (row := read_result(run, plan[name].tunes)) is not None:
            return row

        _copy_twin(run)
        _make_resumable(run, resolved.config, plan[name].trains_controls)

        try:
            if plan[name].trains_controls:
                train_controls(resolved.config, run, lambda stage: [_Report(run, stage)])
            else:
                train(resolved.config, run, run.is_dir(), lambda stage: [_Report(run, stage)])

            # left over if an earlier attempt was killed before it removed them
            shutil.rmtree(RunFolder(run).checkpoints, ignore_errors=True)
            _report(run, "test", {})
            row = measured(plan[name], resolved)
        except Exception as error:
            if isinstance(error, RekdEdgeError):
                sentence = str(error)
            else:
                sentence = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

            run.mkdir(parents=True, exist_ok=True)
            write_json(run / ERROR, {"error": sentence, "traceback": traceback.format_exc()})

            if isinstance(error, RekdEdgeError):
                raise

            raise FailureError(sentence) from error
        finally:
            (run / PROGRESS).unlink(missing_ok=True)

        write_json(run / RESULT, row)
        return row


def _digest(run: Path) -> str:
    """The digest of the settings in a run folder's name."""
    return run.name.rpartition("-")[2]


def _copy_twin(run: Path) -> None:
    """Copy the finished run of another row with the same settings, as tuning rows have them."""
    twins = (path for path in sorted(run.parent.glob(f"*-{_digest(run)}")) if (path / RESULT).is_file())
    twin = next(twins, None)
    if twin is None or run.exists():
        return
    with staged_folder(run) as staging:
        shutil.copytree(twin, staging, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RESULT, ERROR, PROGRESS))


def _make_resumable(run: Path, config: TrainingConfig, controls_alone: bool = False) -> None:
    """Keep of an earlier attempt what `train` or `train_controls` can resume.

    The fingerprint is the same, so the settings differ only in what does not change the result.
    """
    for name in (ERROR, PROGRESS):
        (run / name).unlink(missing_ok=True)

    folder = RunFolder(run)
    if folder.sources_file.is_file():
        own = config.control in (None, "train")
        controls = [] if own else [Path(config.control or "") / control.name for control in controls_of(config)]
        now = source_digests([Path(config.teacher)] if config.teacher else [], controls)
        if not now.items() <= read_json(folder.sources_file).items():  # they were trained again, to other weights
            shutil.rmtree(run)

    asked = json.loads(json.dumps(config.to_dict()))
    indifferent = {key: asked[key] for key in Process.fields_by_key()}

    for control in controls_of(config):
        own_folder = folder.control(control.name)
        restate(own_folder, {**indifferent, "backbone": asked["backbone"]}, asked["data"]["spec"])

    if not controls_alone:
        restate(folder, asked, asked["data"]["spec"])


def measured(run: Run, resolved: Resolved) -> dict[str, Any]:
    """The row of a trained run: its shape, its figures on dev and, unless it is a tuning candidate, on test."""
    config, folder = resolved.config, RunFolder(resolved.folder)
    if run.trains_controls:
        folder = _counting_of(folder, config)

    facts, dev = RationaleConfig.load(folder.path), folder.read_metrics()
    beside = None

    control = None if run.trains_controls or run.tunes else counting_control(folder)
    if control is not None:
        shared = None if run.control in (None, "train") else read_result(control.path.parent)
        beside = (shared or evaluate(control.path, config.spec, config.data))["accuracy"]

    return {
        **labels(run, resolved),
        "layers": facts.predictor["num_hidden_layers"],
        "generator_layers": facts.generator and facts.generator["num_hidden_layers"],
        "mask_mode": facts.mask_mode if method_of(run.method).selects else None,
        "target_ratio": facts.target_ratio,
        "seed": run.seed,
        "select_by": config.select_by,
        **({"accuracy": None} if run.tunes else evaluate(folder.path, config.spec, config.data)),
        "random_mask_accuracy": beside,
        "dev_random_mask_accuracy": dev.get("random_mask_accuracy"),
        "dev_accuracy": dev["accuracy"],
        "dev_loss": dev["loss"],
        "dev_rationale_ratio": dev["rationale_ratio"],
    }


def _counting_of(folder: RunFolder, config: TrainingConfig) -> RunFolder:
    """The control that counts; without a comparison, the one that warm starts begin from."""
    controls = {control.name: folder.control(control.name) for control in controls_of(config)}
    comparison = compare(controls)
    return controls[WARM] if comparison is None else controls[comparison.name]


def labels(run: Run, resolved: Resolved) -> dict[str, Any]:
    """What a grid calls a run, which its fingerprint does not cover: another grid may call the same run otherwise."""
    return {
        "run": resolved.folder.name,
        "data": place_name(resolved.config.spec),
        "method": run.method,
        "variant": run.row,
        "line": run.line,
        "role": run.role,
        "backbone": place_name(resolved.config.backbone),
        "settings": {**dict(run.values), **resolved.picked},
    }


def place_name(name: str) -> str:
    """A hub name or built-in as it is, a local folder by its last part."""
    family, parted, place = name.rpartition(":")
    return f"{family}{parted}{Path(place).name}" if Path(place).exists() else name


class _Report(TrainerCallback):
    """Keeps `progress.json` of a run: `pid`, `host`, `stage`, `step` of `steps`, `epoch` of `epochs`."""

    def __init__(self, run: Path, stage: str) -> None:
        self.run = run
        self.stage = stage
        self._last = 0.0

    def _say(self, args: Any, state: Any) -> None:
        self._last = time.monotonic()
        step = {"step": state.global_step, "steps": state.max_steps}
        _report(
            self.run, self.stage, {**step, "epoch": int(state.epoch or 0) + 1, "epochs": round(args.num_train_epochs)}
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report that the stage begins."""
        self._say(args, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report a step, twice a second at most."""
        if time.monotonic() - self._last > _REPORT_SECONDS:
            self._say(args, state)


def _report(run: Path, stage: str, more: dict[str, Any]) -> None:
    write_json(
        run / PROGRESS, {"pid": os.getpid(), "host": socket.gethostname(), "stage": stage, **more}, durable=False
    )


def unknown_folders(folder: Path, known: Iterable[Path]) -> list[Path]:
    """Run folders of a sweep that its grid does not name."""
    named = {*known, folder / RUNS / TARGETS}
    return sorted(path for path in (folder / RUNS).glob("*") if path.is_dir() and path not in named)

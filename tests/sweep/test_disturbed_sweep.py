"""Sweeps that are cut off, lose a worker, or find a run under way."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweep_calls import compared, run_of, sweep_here
from transformers import TrainerCallback

from rekd_edge.engines import EngineSettings
from rekd_edge.sweep import perform
from rekd_edge.sweep.grid import load_grid
from rekd_edge.sweep.run import run_sweep
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train

KILLS = 20


def cut_off_at_random(grid: str, folder: Path, moments: random.Random, kills: int) -> int:
    """Run a sweep in processes that are killed at random points, then in one that is not; how many were."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rekd_edge.sweep.run"])
    killed, finished = 0, 0
    while True:
        process = context.Process(target=sweep_here, args=(grid, folder))
        process.start()
        process.join(moments.uniform(0.2, 3.0) if killed < kills else None)
        before, finished = finished, len(list(folder.glob("runs/*/result.json")))
        assert finished >= before
        if process.exitcode is not None:
            assert process.exitcode == 0
            return killed
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        killed += 1


@pytest.mark.slow
def test_sweeps_that_were_cut_off_end_with_the_same_table(
    tiny: str, undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    moments, killed, sweeps = random.Random(2026), 0, 0
    while killed < KILLS:
        folder = tmp_path / f"sweep-{sweeps}"
        killed += cut_off_at_random(tiny, folder, moments, KILLS - killed)
        sweeps += 1
        assert compared(json.loads((folder / "table.json").read_text())) == compared(undisturbed[1])


class Cut(TrainerCallback):
    def on_save(self, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_with_its_own_control_goes_on_where_nothing_that_counts_changed(tmp_path: Path, finished: bool) -> None:
    settings = {"data.train_limit": 96, "data.eval_limit": 48, "data.max_length": 32, "epochs": 2, "layers": 1}
    config = load_config("planted", {**settings, "method": "re"})
    train(config, tmp_path / "whole")
    if finished:
        shutil.copytree(tmp_path / "whole", tmp_path / "run")
    else:
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run", callbacks=lambda stage: [Cut()] if stage == "re" else [])
    asked = replace(config, log_steps=7, checkpoint_minutes=3.0)
    perform._make_resumable(tmp_path / "run", asked)
    metrics = train(asked, tmp_path / "run", resume=True)
    assert metrics == json.loads((tmp_path / "whole" / "metrics.json").read_text())


def test_a_run_whose_teacher_was_trained_once_more_begins_anew(
    undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(run_of(undisturbed[0], "teacher-re-2026"), teacher)
    settings = {"data.train_limit": 96, "data.eval_limit": 48, "data.max_length": 32, "layers": 1, "control": None}
    settings |= {"method": "rekd", "teacher": str(teacher), "allow_weak_teacher": True, "warm_start": False}
    config = load_config("planted", {**settings, "epochs": 2})
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", callbacks=lambda stage: [Cut()])
    perform._make_resumable(tmp_path / "run", config)
    assert (tmp_path / "run" / "checkpoints").is_dir()
    shutil.copy(run_of(undisturbed[0], "student-re-2026") / "model.safetensors", teacher)
    perform._make_resumable(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def kill_worker(folder: Path, name: str, over: threading.Event) -> list[int]:
    """Wait for the first checkpoint of a run, and kill the worker that its progress file names; its pid, if it was."""
    while not over.wait(0.01):
        for checkpoint in (folder / "runs").glob(f"{name}-????????/checkpoints/checkpoint-*"):
            try:
                worker = json.loads((checkpoint.parents[1] / "progress.json").read_text())["pid"]
            except FileNotFoundError:  # it has just ended
                continue
            os.kill(worker, signal.SIGKILL)
            return [worker]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_sweep_that_loses_a_worker_ends_with_the_same_table(
    tiny: str, undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path, engine: str
) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    folder, over, killed = tmp_path / "sweep", threading.Event(), []
    killer = threading.Thread(target=lambda: killed.extend(kill_worker(folder, "student-re-2026", over)))
    killer.start()
    try:
        document = run_sweep(load_grid(tiny), folder, EngineSettings(engine, workers=2))
    finally:
        over.set()
        killer.join()
    assert killed
    assert compared(document) == compared(undisturbed[1])

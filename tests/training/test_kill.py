"""SIGKILL at any moment: a resumed CPU run ends with the weights, bit for bit, of one that was left alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from rekd_edge.data import load_data
from rekd_edge.training.checkpoints import by_step, fault_of
from rekd_edge.training.run import train

KILLS = 20


@pytest.fixture(scope="module")
def server() -> Any:
    """Children that have torch and our modules imported already; nothing has run in the process they come from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rekd_edge.training.run"])
    return context


@pytest.fixture(scope="module")
def student(settings: Callable, runs: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with every stage (targets of a teacher, two controls, the method, the predictor alone), saved at each
    step.
    """
    folder = tmp_path_factory.mktemp("data")
    source = load_data("builtin:planted", settings("text", "re").data)
    for name, split in source.splits.items():
        rows = [
            {"text": text, "label": source.label_names[y]} for text, y in zip(split.inputs, split.labels, strict=True)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    changes = {"data__spec": str(folder), "epochs": 2, "predictor_epochs": 1, "warm_start": True, "batch_size": 24}
    teacher = str(runs("text", "re"))
    return settings(
        "text", "rekd", teacher=teacher, allow_weak_teacher=True, checkpoint_minutes=1e-9, layers=1, **changes
    )


def finish(server: Any, config: Any, output: Path) -> float:
    started = time.monotonic()
    child = server.Process(target=train, args=(config, output, True))
    child.start()
    child.join()
    assert child.exitcode == 0
    return time.monotonic() - started


def reached(output: Path) -> tuple[int, int]:
    """How far a run has come: the stage of its last whole checkpoint, and its step."""
    stages = ["control/checkpoints", "control-descent/checkpoints", "checkpoints", "checkpoints/predictor"]
    found = [
        (stage, step)
        for stage, folder in enumerate(stages)
        for step, checkpoint in by_step(output / folder).items()
        if fault_of(checkpoint, processes=1, steps=step) is None
    ]
    ends = [(1, output / "control"), (2, output / "control-descent"), (len(stages), output)]
    return max([(0, 0), *found, *((stage, 0) for stage, run in ends if (run / "metrics.json").is_file())])


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_bit_identical(server: Any, student: Any, tmp_path: Path) -> None:
    finish(server, student, tmp_path / "warm")  # the first child also starts the server
    undisturbed = tmp_path / "undisturbed" / "run"
    seconds = finish(server, student, undisturbed)
    expected = load_file(undisturbed / "model.safetensors")
    chance = random.Random(2026)
    kills, attempt = 0, 0
    while kills < KILLS:
        attempt += 1
        output = tmp_path / f"killed-{attempt}" / "run"
        before, far = kills, (0, 0)
        while True:
            child = server.Process(target=train, args=(student, output, True))
            started = time.monotonic()
            child.start()
            child.join(chance.uniform(0.1, 0.9) * seconds)
            if not child.is_alive():  # not when metrics.json is there: one killed after that leaves its checkpoints
                assert child.exitcode == 0
                break
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            assert far <= (far := reached(output))  # nothing is lost that a checkpoint held
            kills += 1
            seconds *= 1.1  # on a machine that got busier it must end too
        if kills == before:
            seconds = time.monotonic() - started  # of a whole run; the machine was busier before
        found = load_file(output / "model.safetensors")
        assert found.keys() == expected.keys()
        assert all(bool((found[name] == weight).all()) for name, weight in expected.items())
        left = {path.name for path in output.iterdir()}
        assert left == {path.name for path in undisturbed.iterdir()}

"""Settings that change how a run is computed and not what it learns: accumulation, recomputed layers, compilation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from rekd_edge.training import trainer as trainer_module
from rekd_edge.training.objectives import Moment
from rekd_edge.training.run import train


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> list[Moment]:
    """What objectives are told, batch by batch."""
    seen: list[Moment] = []
    find = trainer_module.objective_of

    def watched(name: str) -> Any:
        objective = find(name)
        return lambda model, batch, moment, context: (seen.append(moment), objective(model, batch, moment, context))[1]

    monkeypatch.setattr(trainer_module, "objective_of", watched)
    return seen


@pytest.mark.parametrize("task", ["text", "image"])
def test_two_accumulated_batches_are_one_of_twice_the_size(
    task: str,
    settings: Callable,
    tmp_path: Path,
    moments: list[Moment],
    assert_trained_alike: Callable[[Path, Path], None],
) -> None:
    # nothing is sampled in `cls`; what other methods sample differs, as every batch has noise of its own
    common = {"head_dropout": 0.0, "precision": "fp32", "count_all_positions": task == "text"}  # no batches by length
    train(settings(task, "cls", batch_size=32, **common), tmp_path / "one")
    whole, moments[:] = list(moments), []
    train(settings(task, "cls", batch_size=16, gradient_accumulation=2, **common), tmp_path / "two")
    assert_trained_alike(tmp_path / "one", tmp_path / "two")
    temperatures, progress = ([getattr(each, name) for each in moments] for name in ("temperature", "progress"))
    assert temperatures == [each.temperature for each in whole for _ in range(2)]  # optimiser steps count
    assert progress == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert json.loads((tmp_path / "two" / "training.json").read_text())["steps"] == 4


def test_noise_is_the_same_again_and_another_in_every_batch(
    settings: Callable, tmp_path: Path, moments: list[Moment]
) -> None:
    config = settings("text", "re", gradient_accumulation=2, epochs=1, control=None)
    train(config, tmp_path / "run")
    drawn = [moment.noise for moment in moments]
    assert [noise.shape[0] for noise in drawn] == [16] * 4
    firsts = {float(noise[0, 0, 0]) for noise in drawn}
    assert len(firsts) == 4
    moments.clear()
    train(config, tmp_path / "again")
    assert all(torch.equal(moment.noise, noise) for moment, noise in zip(moments, drawn, strict=True))


@pytest.mark.parametrize(("task", "method"), [("text", "re"), ("image", "re"), ("text", "rtp")])
def test_run_with_recomputed_layers_ends_the_same(
    task: str, method: str, settings: Callable, tmp_path: Path, assert_trained_alike: Callable[[Path, Path], None]
) -> None:
    own = {"rtp__warmup_epochs": 1} if method == "rtp" else {}
    for name in (False, True):
        config = settings(task, method, gradient_checkpointing=name, control=None, precision="fp32", **own)
        train(config, tmp_path / str(name))
    assert_trained_alike(tmp_path / "False", tmp_path / "True")


class Graphs(TrainerCallback):
    """How many graphs were compiled after each step, and where a graph broke."""

    def __init__(self) -> None:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        self.counts: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["re", "rekd"])
def test_compiled_model_is_one_graph_for_all_lengths_and_temperatures(
    method: str,
    runs: Callable,
    settings: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_trained_alike: Callable[[Path, Path], None],
) -> None:
    own: dict[str, Any] = {"head_dropout": 0.0, "precision": "fp32"}
    if method == "rekd":
        own |= {"control": None, "teacher": str(runs("text", "re")), "allow_weak_teacher": True}
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    graphs = Graphs()
    train(settings("text", method, compile=True, **own), tmp_path / "compiled", callbacks=lambda stage: [graphs])
    assert graphs.counts == ([1] * 8 if method == "rekd" else [1] * 8 + [2] * 8)  # a control has one of its own
    assert not torch._dynamo.utils.counters["graph_break"]
    train(settings("text", method, **own), tmp_path / "plain")
    assert_trained_alike(tmp_path / "plain", tmp_path / "compiled")


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_compiled_run_learns_what_a_plain_one_does(
    settings: Callable, tmp_path: Path, assert_trained_alike: Callable[[Path, Path], None]
) -> None:
    own = {"control": None, "head_dropout": 0.0, "precision": "fp32"}
    for name in (False, True):
        train(settings("text", "re", compile=name, **own), tmp_path / str(name))
    assert_trained_alike(tmp_path / "False", tmp_path / "True")

"""Resuming from damaged checkpoints: what does not verify is passed over, and the end is that of an undisturbed run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from rekd_edge.errors import InputError
from rekd_edge.files import DIGESTS, write_digests
from rekd_edge.training.checkpoints import by_step, fault_of, seal
from rekd_edge.training.run import train

FILES = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "trainer_state.json"]


class InterruptAfter(TrainerCallback):
    """Ctrl-C when the checkpoint of a step is written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


class Steps(TrainerCallback):
    """Keeps the steps that were taken."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.taken.append(state.global_step)


@pytest.fixture(scope="module")
def interrupted(settings: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps, cut off after the checkpoint of its last; it holds those of steps 4 and 8."""
    output = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(KeyboardInterrupt):
        train(settings("image", "cls"), output, callbacks=lambda _: [InterruptAfter(8)])
    assert list(by_step(output / "checkpoints")) == [4, 8]
    return output


@pytest.fixture
def run(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


@pytest.fixture
def resume(settings: Callable, runs: Callable[..., Path]) -> Callable[[Path], list[int]]:
    """Resume a run, and hold its weights against those of one that was never cut off; gives the steps it took."""

    def resume(output: Path) -> list[int]:
        steps = Steps()
        train(settings("image", "cls"), output, resume=True, callbacks=lambda _: [steps])
        ours, theirs = (load_file(folder / "model.safetensors") for folder in (output, runs("image", "cls")))
        assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
        return steps.taken

    return resume


def empty(file: Path) -> None:
    file.write_bytes(b"")


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [empty, halve, flip, Path.unlink])
def test_damage_to_any_file_is_found(damage: Callable[[Path], None], name: str, run: Path) -> None:
    checkpoint = run / "checkpoints" / "checkpoint-8"
    assert fault_of(checkpoint, processes=1, steps=8) is None
    damage(checkpoint / name)
    assert name in str(fault_of(checkpoint, processes=1, steps=8))


def test_a_torn_checkpoint_is_passed_over_and_said_so(
    run: Path, resume: Callable[[Path], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    empty(run / "checkpoints" / "checkpoint-8" / "optimizer.pt")
    assert resume(run) == [5, 6, 7, 8]
    said = capsys.readouterr().err
    assert "checkpoint-8 is passed over: it has a damaged optimizer.pt." in said
    assert f"Training goes on from {run / 'checkpoints' / 'checkpoint-4'}." in said


def test_without_a_whole_checkpoint_training_begins_anew_and_says_so(
    run: Path, resume: Callable[[Path], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoints" / "checkpoint-8" / DIGESTS).unlink()  # killed just before the end
    flip(run / "checkpoints" / "checkpoint-4" / "model.safetensors")
    assert resume(run) == [1, 2, 3, 4, 5, 6, 7, 8]
    said = capsys.readouterr().err
    assert f"checkpoint-8 is passed over: it has no {DIGESTS}." in said
    assert "checkpoint-4 is passed over: it has a damaged model.safetensors." in said
    assert "Training begins anew." in said


def edit_state(checkpoint: Path, **changes: Any) -> None:
    file = checkpoint / "trainer_state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda folder: (folder / "optimizer.pt").unlink(), "lacks optimizer.pt"),
        (lambda folder: (folder / "scheduler.pt").unlink(), "lacks scheduler.pt"),
        (lambda folder: (folder / "rng_state.pth").unlink(), "lacks rng_state.pth"),
        (lambda folder: edit_state(folder, global_step=10**9), "step 1000000000 of 8"),
        (lambda folder: edit_state(folder, global_step="8"), "step 8 of 8"),
        (lambda folder: edit_state(folder, best_model_checkpoint="elsewhere/checkpoint-6"), "checkpoint-6, which is"),
        (lambda folder: empty(folder / "trainer_state.json"), "damaged trainer_state.json"),
    ],
)
def test_digests_that_fit_do_not_make_a_checkpoint_whole(damage: Callable[[Path], None], fault: str, run: Path) -> None:
    checkpoint = run / "checkpoints" / "checkpoint-8"
    damage(checkpoint)
    write_digests(checkpoint)
    assert fault in str(fault_of(checkpoint, processes=1, steps=8))


def test_a_checkpoint_beyond_the_end_of_training_is_passed_over(run: Path) -> None:
    assert "step 8 of 4" in str(fault_of(run / "checkpoints" / "checkpoint-8", processes=1, steps=4))


def test_a_checkpoint_of_fewer_processes_is_passed_over(run: Path) -> None:
    assert fault_of(run / "checkpoints" / "checkpoint-8", processes=2, steps=8) == "lacks rng_state_0.pth"


def test_a_checkpoint_whose_best_epoch_is_damaged_is_passed_over(run: Path) -> None:
    newest, best = (run / "checkpoints" / f"checkpoint-{step}" for step in (8, 4))
    edit_state(newest, best_model_checkpoint=f"/another/machine/{best.name}")
    write_digests(newest)
    assert fault_of(newest, processes=1, steps=8) is None
    flip(best / "model.safetensors")
    assert "needs the weights of checkpoint-4" in str(fault_of(newest, processes=1, steps=8))


def test_what_is_no_checkpoint_is_ignored(run: Path, resume: Callable[[Path], list[int]]) -> None:
    for name in ("checkpoint-foo", "checkpoint-", "checkpoint-9.tmp", "notes", f"checkpoint-{'9' * 5000}"[:200]):
        (run / "checkpoints" / name).mkdir()
    (run / "checkpoints" / "checkpoint-99").write_text("a file")
    assert resume(run) == []


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_in_a_sealed_checkpoint_is_not_executed(
    name: str, interrupted: Path, settings: Callable, run: Path, tmp_path: Path
) -> None:
    checkpoint = run / "checkpoints" / "checkpoint-4"
    shutil.rmtree(run / "checkpoints" / "checkpoint-8")
    (checkpoint / name).write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    write_digests(checkpoint)
    with pytest.raises(InputError, match=r"checkpoint-4 cannot be loaded \(\w+\); remove it") as caught:
        train(settings("image", "cls"), run, resume=True)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_a_run_of_an_earlier_release_is_not_resumed(run: Path, settings: Callable) -> None:
    for file in [run / "checkpoints" / ".made-by-rekd-edge", *(run / "checkpoints").glob(f"*/{DIGESTS}")]:
        file.unlink()
    with pytest.raises(InputError, match=r"started by an earlier release.*remove it and train again"):
        train(settings("image", "cls"), run, resume=True)


def test_the_best_checkpoint_and_the_newest_are_kept(tmp_path: Path) -> None:
    def saved(step: int, best: int | None) -> list[int]:
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "model.safetensors").write_text(str(step))
        seal(checkpoint, None if best is None else f"/elsewhere/checkpoint-{best}")
        return list(by_step(tmp_path))

    assert saved(1, None) == [1]
    assert saved(2, 2) == [1, 2]  # the best is the newest: the one before stays, should the newest be torn
    assert saved(3, 2) == [2, 3]
    assert saved(4, 2) == [2, 4]
    assert saved(5, 5) == [4, 5]
    (tmp_path / "checkpoint-9").mkdir()  # torn, of an attempt that came further
    assert saved(6, 5) == [5, 6]

"""Links in a run folder lead nothing out of it: resuming writes and deletes inside the run alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from rekd_edge.errors import InputError
from rekd_edge.runs import RunFolder
from rekd_edge.training.run import train


class InterruptAfterEpoch(TrainerCallback):
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def interrupted(settings: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run cut off after its first epoch, at step 4 of 8."""
    output = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(KeyboardInterrupt):
        train(settings("image", "cls"), output, callbacks=lambda _: [InterruptAfterEpoch()])
    return output


@pytest.fixture
def run(interrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Somebody else's folder."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "letter.txt").write_text("mine")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


REFUSED = "is a link, which is not followed; remove it"


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/checkpoint-4"])
def test_a_folder_that_was_moved_and_linked_to_is_refused(
    name: str, run: Path, settings: Callable, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.move(run / name, moved)
    (run / name).symlink_to(moved)
    before = content(moved)
    with pytest.raises(InputError, match=REFUSED):
        train(settings("image", "cls"), run, resume=True)
    assert content(moved) == before


def test_a_link_where_the_next_checkpoint_goes_is_refused(run: Path, outside: Path, settings: Callable) -> None:
    (run / "checkpoints" / "checkpoint-8").symlink_to(outside)
    with pytest.raises(InputError, match=REFUSED):
        train(settings("image", "cls"), run, resume=True)
    assert content(outside) == {"letter.txt": b"mine"}


@pytest.mark.parametrize(
    ("changes", "place"), [({}, "control-descent"), ({"control": None, "predictor_epochs": 1}, "checkpoints/predictor")]
)
def test_a_link_where_another_stage_goes_is_refused(
    changes: dict[str, Any], place: str, outside: Path, settings: Callable, tmp_path: Path
) -> None:
    config, run = settings("image", "re", **changes), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(config, run, callbacks=lambda _: [InterruptAfterEpoch()])
    shutil.rmtree(run / place, ignore_errors=True)
    (run / place).symlink_to(outside)
    with pytest.raises(InputError, match=f"{place} {REFUSED}"):
        train(config, run, resume=True)
    assert content(outside) == {"letter.txt": b"mine"}


@pytest.mark.parametrize("name", ["recipe.json", "sources.json", ".sources.json.new", "checkpoint-4/optimizer.pt"])
def test_a_link_in_place_of_a_file_is_not_written_through(
    name: str, run: Path, settings: Callable, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.bin"
    place = run / "checkpoints" / name
    if place.exists():
        shutil.move(place, outside)
    else:
        outside.write_text("mine")
    place.symlink_to(outside)
    before = outside.read_bytes()
    train(settings("image", "cls"), run, resume=True)
    assert outside.read_bytes() == before
    assert not RunFolder(run).checkpoints.exists()


def test_a_link_beside_a_finished_run_is_left_alone(
    runs: Callable[..., Path], outside: Path, settings: Callable, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs("image", "cls"), tmp_path / "run"))
    (run / "checkpoints").symlink_to(outside)
    train(settings("image", "cls"), run, resume=True)
    assert content(outside) == {"letter.txt": b"mine"}

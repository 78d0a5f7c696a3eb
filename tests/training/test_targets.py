"""Teacher targets on disk: those of any batch, computed once, keyed by teacher and data, resumed where cut off."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rekd_edge.data import load_data
from rekd_edge.data.features import TextFeatures
from rekd_edge.errors import InputError
from rekd_edge.modeling import RationaleModel
from rekd_edge.runs.layout import TARGETS
from rekd_edge.training import targets as targets_module
from rekd_edge.training.preparation import preprocessing_of_run
from rekd_edge.training.run import train
from rekd_edge.training.targets import read_targets, store_targets, targets_key
from rekd_edge.training.teacher import Teacher, TeacherFacts, Teachers, read_teacher

CPU = torch.device("cpu")


class Prepared:
    """A teacher run, its training split and collator."""

    def __init__(self, folder: Path, config: Any, pad: bool = False) -> None:
        self.facts = read_teacher(str(folder), allow_weak=True)
        preprocessing = preprocessing_of_run(folder, self.facts.config)
        self.features = preprocessing.features(load_data(config.spec, config.data).split("train"))
        self.collate = preprocessing.collator(pad_to_max_length=pad)
        self.teachers = Teachers([Teacher(self.facts, CPU, self.facts.config.image)])
        self.lengths = self.features.lengths if isinstance(self.features, TextFeatures) and not pad else None

    def store(self, folder: Path, load: Callable[[], Teachers] | None = None) -> Any:
        given = load or (lambda: self.teachers)
        store_targets(folder, given, self.features, self.collate, self.lengths, CPU, batch_size=7)
        return read_targets(folder)


@pytest.mark.parametrize("task", ["text", "image"])
def test_targets_computed_once_are_those_of_any_batch(
    task: str, runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    teacher = Prepared(runs(task, "re"), settings(task, "re"))
    teacher.features.targets = teacher.store(tmp_path / "key")
    batch = teacher.collate([teacher.features[i] for i in (40, 3, 17, 0, 55)])
    targets = teacher.teachers.targets(batch)
    real = batch.get("attention_mask", torch.ones(targets["teacher_mask"].shape[:2])) == 1
    for name in ("teacher_selection_logits", "teacher_mask"):
        torch.testing.assert_close(batch[name][real], targets[name][real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(batch["teacher_logits"], targets["teacher_logits"], atol=1e-5, rtol=1e-5)
    # equation 8 of the paper: the teacher decides from its own deterministic rationale
    model = RationaleModel.from_pretrained(teacher.facts.folder)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values") if name in batch}
    output = model(**inputs)
    torch.testing.assert_close(targets["teacher_logits"][:, 0], output.logits.detach(), atol=1e-6, rtol=1e-6)
    assert torch.equal(targets["teacher_mask"][..., 0], output.mask)


def test_targets_of_padding_are_kept_where_it_counts(
    runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    teacher = Prepared(runs("text", "re"), settings("text", "re"), pad=True)
    teacher.features.targets = teacher.store(tmp_path / "key")
    batch = teacher.collate([teacher.features[i] for i in (40, 3, 17)])
    assert (batch["attention_mask"] == 0).any()
    wanted = teacher.teachers.targets(batch)["teacher_selection_logits"]
    torch.testing.assert_close(batch["teacher_selection_logits"], wanted, atol=1e-5, rtol=1e-5)


def test_store_is_memory_mapped_and_asks_no_teacher_again(
    runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    teacher = Prepared(runs("text", "re"), settings("text", "re"))
    first = teacher.store(tmp_path / "key")
    again = teacher.store(tmp_path / "key", lambda: pytest.fail("computed twice"))
    assert isinstance(again["teacher_selection_logits"][3].base, np.memmap | np.ndarray)
    assert isinstance(again["teacher_logits"], np.memmap)
    assert len(again["teacher_mask"]) == len(teacher.features)
    for file in (tmp_path / "key").glob("*.npy"):  # with room on the disk before a page is written
        assert file.stat().st_blocks * 512 >= file.stat().st_size
    for one, other in zip(first["teacher_mask"], again["teacher_mask"], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again["teacher_mask"][-1], again["teacher_mask"][len(teacher.features) - 1])
    with pytest.raises(IndexError):
        again["teacher_mask"][len(teacher.features)]


def test_interrupted_store_goes_on_where_it_was_and_ends_equal(
    runs: Callable[..., Path], settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Prepared(runs("text", "re"), settings("text", "re"))
    whole = teacher.store(tmp_path / "whole")
    monkeypatch.setattr(targets_module, "FLUSH_EVERY", 2)
    asked: list[int] = []
    answer = teacher.teachers.targets

    def counting(batch: Any, *rest: Any) -> Any:
        if len(asked) == 5:
            asked.clear()
            raise KeyboardInterrupt
        asked.append(len(batch["labels"]))
        return answer(batch, *rest)

    monkeypatch.setattr(teacher.teachers, "targets", counting)
    with pytest.raises(KeyboardInterrupt):
        teacher.store(tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    assert json.loads((tmp_path / "cut.partial/done.json").read_text())["examples"] == 28  # 4 batches of 7
    monkeypatch.setattr(teacher.teachers, "targets", lambda batch, *rest: (asked.append(1), answer(batch, *rest))[1])
    cut = teacher.store(tmp_path / "cut")
    assert len(asked) == 6  # 36 of 64 examples were left
    for name, rows in whole.items():
        for one, other in zip(rows, cut[name], strict=True):
            np.testing.assert_array_equal(one, other)


def zero(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:128] + bytes(file.stat().st_size - 128))  # behind the header of an .npy


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damage", [zero, halve, Path.unlink])
@pytest.mark.parametrize("finished", [True, False])
def test_a_damaged_store_is_computed_anew_and_said_so(
    damage: Callable[[Path], None],
    finished: bool,
    runs: Callable[..., Path],
    settings: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    teacher = Prepared(runs("text", "re"), settings("text", "re"))
    whole = teacher.store(tmp_path / "whole")
    place = tmp_path / "key"
    if finished:
        teacher.store(place)
    else:
        monkeypatch.setattr(targets_module, "FLUSH_EVERY", 2)
        monkeypatch.setattr(targets_module, "write_digests", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            teacher.store(place)
        monkeypatch.undo()
        place = tmp_path / "key.partial"
    damage(place / "teacher_selection_logits.npy")
    again = teacher.store(tmp_path / "key")
    assert "they are computed anew." in capsys.readouterr().err
    for name, rows in whole.items():
        for one, other in zip(rows, again[name], strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_folder_in_place_of_a_store_is_left_alone(
    runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    teacher = Prepared(runs("text", "re"), settings("text", "re"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    (tmp_path / "key").symlink_to(tmp_path / "mine")
    for name in ("mine", "key"):
        with pytest.raises(InputError, match=f"{name} is not ours, and rekd-edge did not put it there; remove it"):
            teacher.store(tmp_path / name)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_a_changed_teacher_or_data_set_has_another_key(runs: Callable[..., Path], tmp_path: Path) -> None:
    facts = read_teacher(str(runs("text", "re")), allow_weak=True)
    key = targets_key([facts], "data", True, 48)
    moved = tmp_path / "moved"
    shutil.copytree(facts.folder, moved)
    copy = TeacherFacts(moved, facts.config, facts.metrics)
    assert targets_key([copy], "data", True, 48) == key  # where it stands does not matter
    assert targets_key([facts], "other data", True, 48) != key
    assert targets_key([facts], "data", False, 48) != key
    assert targets_key([facts, copy], "data", True, 48) != key
    content = bytearray((moved / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (moved / "model.safetensors").write_bytes(content)
    assert targets_key([copy], "data", True, 48) != key


def test_students_of_one_folder_share_a_store_and_a_changed_teacher_is_noticed(
    runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(runs("text", "re"), teacher)

    def student(name: str, seed: int) -> None:
        changes = {"teacher": str(teacher), "control": None, "allow_weak_teacher": True, "epochs": 1}
        train(settings("text", "rekd", seed=seed, **changes), tmp_path / name)

    def stores() -> set[str]:
        return {path.name for path in (tmp_path / TARGETS).iterdir() if path.is_dir()}

    student("one", 1)
    first = stores()
    student("two", 2)
    assert stores() == first
    assert len(first) == 1
    model = RationaleModel.from_pretrained(teacher)
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    model.save_pretrained(teacher)
    student("three", 3)
    assert len(stores()) == 2

"""Who may teach, and what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from rekd_edge.data import ImageCollator, ImageFeatures, load_data, train_tokenizer
from rekd_edge.errors import InputError
from rekd_edge.modeling import RationaleConfig
from rekd_edge.runtime.image import ImageSettings
from rekd_edge.training.preparation import preprocessing_of_run
from rekd_edge.training.teacher import Teacher, TeacherFacts, check_teacher, read_teacher

CPU = torch.device("cpu")


@pytest.fixture
def teacher_folder(runs: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of the text teacher with other metrics."""

    def copy(**metrics: Any) -> Path:
        folder = tmp_path / "teacher"
        shutil.copytree(runs("text", "re"), folder)
        saved = json.loads((folder / "metrics.json").read_text())
        saved |= {"accuracy": 0.9, "random_mask_accuracy": 0.6, "rationale_ratio": 0.1} | metrics
        kept = {name: value for name, value in saved.items() if value is not None}
        (folder / "metrics.json").write_text(json.dumps(kept))
        return folder

    return copy


def test_teacher_above_its_control_and_near_its_target_is_taken(teacher_folder: Callable[..., Path]) -> None:
    facts = read_teacher(str(teacher_folder()), allow_weak=False)
    assert facts.config.method == "re"
    assert facts.metrics["accuracy"] == 0.9


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"accuracy": 0.6}, "no better than its random-mask control"),
        ({"accuracy": 0.5}, "no better than its random-mask control"),
        ({"random_mask_accuracy": None}, "without a random-mask control"),
        ({"rationale_ratio": 0.3}, "selects 30.0% instead of 10.0%"),
        ({"rationale_ratio": 0.0}, "selects 0.0%"),
    ],
)
def test_weak_teacher_is_refused_with_the_way_to_override_it(
    metrics: dict[str, Any], words: str, teacher_folder: Callable[..., Path]
) -> None:
    folder = teacher_folder(**metrics)
    with pytest.raises(InputError, match=words) as caught:
        read_teacher(str(folder), allow_weak=False)
    assert "--set allow_weak_teacher=true" in str(caught.value)
    assert read_teacher(str(folder), allow_weak=True).folder == folder


def test_what_is_no_run_that_selects_is_refused(runs: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_teacher(str(tmp_path / "none"), True)
    with pytest.raises(InputError, match=r"no config\.json"):
        read_teacher(str(tmp_path), True)
    with pytest.raises(InputError, match="selects nothing"):
        read_teacher(str(runs("text", "cls")), True)
    with pytest.raises(InputError, match="selects nothing"):
        read_teacher(str(runs("text", "re") / "control-descent"), True)


def test_unfinished_teacher_is_refused(teacher_folder: Callable[..., Path]) -> None:
    folder = teacher_folder()
    (folder / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"metrics\.json"):
        read_teacher(str(folder), True)


def test_teacher_without_its_tokenizer_is_refused(teacher_folder: Callable[..., Path]) -> None:
    facts, student, tokenizer = facts_and_tokenizer(teacher_folder())
    (facts.folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        check_teacher(facts, student, tokenizer)


def facts_and_tokenizer(folder: Path) -> tuple[TeacherFacts, RationaleConfig, Tokenizer | None]:
    facts = read_teacher(str(folder), True)
    return facts, replace(facts.config), preprocessing_of_run(folder, facts.config).tokenizer


@pytest.mark.parametrize("task", ["text", "image"])
def test_student_that_reads_as_its_teacher_is_accepted(task: str, runs: Callable[..., Path]) -> None:
    facts, student, tokenizer = facts_and_tokenizer(runs(task, "re"))
    check_teacher(facts, student, tokenizer)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "image"}, "reads text"),
        ({"labels": ["pos", "neg"]}, "knows the labels"),
        ({"labels": ["neg", "pos", "mixed"]}, "neg, pos, mixed"),
        ({"max_length": 64}, "data.max_length=48"),
    ],
)
def test_student_that_reads_otherwise_is_refused(
    changes: dict[str, Any], words: str, runs: Callable[..., Path]
) -> None:
    facts, student, tokenizer = facts_and_tokenizer(runs("text", "re"))
    with pytest.raises(InputError, match=words):
        check_teacher(facts, replace(student, **changes), tokenizer)


def test_student_with_another_tokenizer_is_refused(runs: Callable[..., Path]) -> None:
    facts, student, _ = facts_and_tokenizer(runs("text", "re"))
    other = train_tokenizer(["an altogether different vocabulary"], 100)
    with pytest.raises(InputError, match="another tokenizer"):
        check_teacher(facts, student, other)


def test_student_with_another_patch_grid_is_refused(runs: Callable[..., Path]) -> None:
    facts, student, _ = facts_and_tokenizer(runs("image", "re"))
    with pytest.raises(InputError, match="8x8 patches, this run into 16x16"):
        check_teacher(facts, replace(student, image={**student.image, "height": 16, "width": 16}), None)
    # the same grid from larger images and patches will do
    check_teacher(facts, replace(student, image={**student.image, "height": 16, "width": 16, "patch_size": 2}), None)


@pytest.mark.parametrize("mask_mode", ["zero", "drop"])
def test_teacher_can_decide_from_the_students_mask(mask_mode: str, runs: Callable[..., Path]) -> None:
    facts, _, tokenizer = facts_and_tokenizer(runs("text", "re"))
    assert tokenizer is not None
    teacher = Teacher(facts, CPU, None)
    teacher.model.predictor.mask_mode = mask_mode
    encoded = [tokenizer.encode(text).ids for text in ("the door opened twice .", "Vera .")]
    width = max(map(len, encoded))
    batch = {
        "input_ids": torch.tensor([ids + [0] * (width - len(ids)) for ids in encoded]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in encoded]),
    }
    feature, _ = teacher.model.feature_positions(batch["input_ids"], batch["attention_mask"])
    chosen = feature & (torch.arange(width) < 3)
    everything = chosen | ~feature  # as a student samples that counts all positions
    q = teacher.targets(batch, chosen.float())["teacher_logits"]
    inputs = batch["input_ids"], batch["attention_mask"]
    torch.testing.assert_close(q, teacher.model.classify(*inputs, chosen, teacher.model.select(*inputs)))
    torch.testing.assert_close(teacher.targets(batch, everything.float())["teacher_logits"], q)
    assert not torch.allclose(teacher.targets(batch, feature.float())["teacher_logits"], q)


def test_teacher_sees_images_normalised_as_it_was_trained(runs: Callable[..., Path], settings: Callable) -> None:
    facts, _, _ = facts_and_tokenizer(runs("image", "re"))
    theirs = facts.config.image
    ours = {**theirs, "mean": [0.1, 0.2, 0.3], "std": [0.3, 0.2, 0.1]}
    config = settings("image", "re")
    examples = load_data(config.spec, config.data).split("train")
    answers = []
    for image in (theirs, ours):
        features = ImageFeatures(examples, ImageSettings.from_dict(image))
        batch = ImageCollator()([features[i] for i in range(6)])
        answers.append(Teacher(facts, CPU, image).targets(batch).values())
    for plain, renormalised in zip(*answers, strict=True):
        torch.testing.assert_close(renormalised, plain, atol=1e-4, rtol=1e-4)


def teacher_and_batch(
    task: str, runs: Callable[..., Path], settings: Callable
) -> tuple[TeacherFacts, dict[str, torch.Tensor]]:
    """A trained teacher, and eight examples of its data."""
    facts, _, _ = facts_and_tokenizer(runs(task, "re"))
    preprocessing, config = preprocessing_of_run(facts.folder, facts.config), settings(task, "re")
    features = preprocessing.features(load_data(config.spec, config.data).split("train"))
    batch = preprocessing.collator()([features[i] for i in range(8)])
    return facts, batch


@pytest.mark.parametrize("task", ["text", "image"])
def test_selection_is_taught_as_it_is_decided(task: str, runs: Callable[..., Path], settings: Callable) -> None:
    facts, batch = teacher_and_batch(task, runs, settings)
    taught, raw = (Teacher(facts, CPU, facts.config.image, calibrated).targets(batch) for calibrated in (True, False))
    feature = torch.ones_like(taught["teacher_mask"])
    if task == "text":
        special = torch.isin(batch["input_ids"], torch.tensor(facts.config.special_token_ids))
        feature = (batch["attention_mask"] == 1) & ~special
    margins = [(z["teacher_selection_logits"][..., 1] - z["teacher_selection_logits"][..., 0]) for z in (taught, raw)]
    bias = facts.config.margin_bias
    assert bias != 0
    torch.testing.assert_close(margins[0][feature], margins[1][feature] + bias, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(margins[0][~feature], margins[1][~feature])  # finite, where there is no margin
    decided = margins[0] > 0
    alone = decided.any(dim=1)  # else the fallback decides
    assert torch.equal(decided[alone] & feature[alone], taught["teacher_mask"][alone])
    for name in ("teacher_mask", "teacher_logits"):
        assert torch.equal(taught[name], raw[name])


@pytest.mark.parametrize("task", ["text", "image"])
def test_labels_of_a_students_mask_are_the_predictors(task: str, runs: Callable[..., Path], settings: Callable) -> None:
    facts, batch = teacher_and_batch(task, runs, settings)
    teacher = Teacher(facts, CPU, facts.config.image)
    own = teacher.targets(batch)
    torch.testing.assert_close(teacher.labels(batch, own["teacher_mask"].float()), own["teacher_logits"])
    others = ~own["teacher_mask"]
    others[:, 1::2] = False
    labels = teacher.labels(batch, others.float())
    assert torch.equal(teacher.targets(batch, others.float())["teacher_logits"], labels)
    if task == "text":
        feature, _ = teacher.model.feature_positions(batch["input_ids"], batch["attention_mask"])
        word = batch["input_ids"][feature][0]
        hidden = batch["input_ids"].masked_fill(feature & ~others, word)
        torch.testing.assert_close(teacher.labels({**batch, "input_ids": hidden}, others.float()), labels)
        everywhere, everything = (teacher.labels(batch, mask.float()) for mask in (torch.ones_like(feature), feature))
        assert torch.equal(everywhere, everything)  # padding is no feature


def test_a_teacher_sees_images_of_another_resolution_in_its_own(runs: Callable[..., Path]) -> None:
    """Each of the student's four pixels that make up one of the teacher's has its value."""
    facts = read_teacher(str(runs("image", "re")), True)
    image = facts.config.image
    assert image is not None
    pixels = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    plain = Teacher(facts, CPU, image).targets({"pixel_values": pixels})
    finer = pixels.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    resized = Teacher(facts, CPU, {**image, "height": 16, "width": 16, "patch_size": 2})._inputs(
        {"pixel_values": finer}
    )
    assert resized.shape == pixels.shape
    assert (resized - pixels).abs().mean() < 0.5 * (pixels - pixels.mean()).abs().mean()
    answer = Teacher(facts, CPU, {**image, "height": 16, "width": 16, "patch_size": 2}).targets({"pixel_values": finer})
    assert {name: value.shape for name, value in answer.items()} == {n: v.shape for n, v in plain.items()}

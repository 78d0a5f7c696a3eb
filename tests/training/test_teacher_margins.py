"""`teacher_margins` decides which selection logits a student is taught: with the calibrated bias, or the head's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rekd_edge.modeling import RationaleModel
from rekd_edge.runs import RunFolder
from rekd_edge.training.stages import fit, prepare


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("margins", ["calibrated", "raw"])
def test_students_are_taught_the_margins_asked_for(
    margins: str, augment: bool, runs: Callable[..., Path], settings: Callable, tmp_path: Path
) -> None:
    """Stored with the training data, or asked of the teachers in every step where images are augmented."""
    task = "image" if augment else "text"
    folder = runs(task, "re")
    more = {"data__augment": True} if augment else {}
    weak = {"teacher": str(folder), "allow_weak_teacher": True, "control": None, "epochs": 1}
    prepared = prepare(settings(task, "rekd", teacher_margins=margins, **weak, **more))
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    trainer = fit(prepared, run, lambda stage: []).trainer

    batch = next(iter(trainer.get_train_dataloader()))
    if augment:
        batch, _, _ = trainer._drawn(batch)
        assert trainer.context.teachers is not None
        taught = trainer.context.teachers.targets(batch)["teacher_selection_logits"][:, :, 0]
    else:
        taught = batch["teacher_selection_logits"][:, :, 0]

    teacher = RationaleModel.from_pretrained(folder)
    selection = teacher.select(batch.get("input_ids", batch.get("pixel_values")), batch.get("attention_mask"))
    assert selection.logits is not None
    bias = teacher.config.margin_bias
    assert abs(bias) > 0.01
    own, found = selection.logits[selection.feature], taught[selection.feature]
    expected = own[:, 1] - own[:, 0] + (bias if margins == "calibrated" else 0.0)
    torch.testing.assert_close(found[:, 1] - found[:, 0], expected, atol=2e-3, rtol=2e-3)

"""Finished runs as teachers: checked before they are loaded, their targets computed once where that is exact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from rekd_edge.errors import InputError
from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleConfig, RationaleModel, Selection
from rekd_edge.runs import RunFolder
from rekd_edge.runtime.image import ImageSettings
from rekd_edge.runtime.text import load_tokenizer

__all__ = ["Teacher", "TeacherFacts", "Teachers", "check_teacher", "read_teacher", "read_teachers", "reading_of"]


@dataclass(frozen=True)
class TeacherFacts:
    """What is known of a teacher without loading its weights."""

    folder: Path
    config: RationaleConfig
    metrics: dict[str, Any]


def read_teachers(folders: str | None, allow_weak: bool, student: str) -> list[TeacherFacts]:
    """Read the teachers that a run of the method `student` names, parted by commas.

    Raises:
        InputError: as for `read_teacher`.
    """
    names = [folder.strip() for folder in (folders or "").split(",") if folder.strip()]
    return [read_teacher(name, allow_weak, student) for name in names]


def read_teacher(folder: str, allow_weak: bool, student: str = "rekd") -> TeacherFacts:
    """Read a teacher run's configuration and metrics, and refuse one that is not worth learning from.

    Args:
        folder: the run.
        allow_weak: whether a run that is no better than its random-mask control may teach.
        student: the student's method. One that selects learns from a run that selects, `cls` from a `cls` run.

    Raises:
        InputError: not a finished run of that kind, or no better than its random-mask control.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"The teacher {folder} does not exist; give --teacher the folder of a finished re run.")

    config = RationaleConfig.load(path)
    if not method_of(student).selects and method_of(config.method).has_ratio:
        raise InputError(
            f"The teacher {folder} is a {config.method} run; {student} learns from a run of --method cls, and only "
            "--method rekd from this one."
        )

    if method_of(student).selects and not config.selects:
        raise InputError(
            f"The teacher {folder} is a {config.method} run and selects nothing; train it with --method re."
        )

    metrics = RunFolder(path).read_metrics("teacher")
    if config.selects and not allow_weak:
        _refuse_weak(folder, metrics, config.target_ratio)

    return TeacherFacts(path, config, metrics)


def _refuse_weak(folder: str, metrics: dict[str, Any], target: float) -> None:
    override = "train it longer, or distil all the same with --set allow_weak_teacher=true"
    control = metrics.get("random_mask_accuracy")
    if control is None:
        raise InputError(f"The teacher {folder} was trained without a random-mask control to compare with; {override}.")

    accuracy = metrics.get("rationale_accuracy", metrics["accuracy"])  # what its rationale is worth
    if accuracy <= control:
        raise InputError(
            f"The teacher {folder} (accuracy {accuracy:.3f}) is no better than its random-mask control "
            f"({control:.3f}); {override}."
        )

    if abs(metrics["rationale_ratio"] - target) > 0.05:
        raise InputError(
            f"The teacher {folder} selects {metrics['rationale_ratio']:.1%} instead of {target:.1%}; {override}."
        )


def check_teacher(
    teacher: TeacherFacts, student: RationaleConfig, tokenizer: Tokenizer | None, teacher_mask: str = "own"
) -> None:
    """Check that teacher and student read the same features and name the same labels.

    Args:
        teacher: the teacher.
        student: configuration of the student to be.
        tokenizer: the student's, None for images.
        teacher_mask: whose mask the teacher is to decide from.

    Raises:
        InputError: they differ in modality, labels, tokeniser, length or patch grid, or the teacher decides from no
            mask.
    """
    ours, theirs = student, teacher.config
    if teacher_mask == "student" and method_of(theirs.method).whole_input:
        raise InputError(
            f"The teacher {teacher.folder} ({theirs.method}) decides from the whole input and no mask; "
            "set teacher_mask=own."
        )

    if ours.task != theirs.task:
        raise InputError(f"The teacher {teacher.folder} reads {theirs.task}, the data is {ours.task}; choose another.")

    if ours.labels != theirs.labels:
        raise InputError(
            f"The teacher {teacher.folder} knows the labels {_listed(theirs.labels)}, the data has "
            f"{_listed(ours.labels)}; train a teacher on this data."
        )

    if ours.task == "text":
        if ours.max_length != theirs.max_length:
            raise InputError(
                f"The teacher reads {theirs.max_length} tokens, this run {ours.max_length}; "
                f"add --set data.max_length={theirs.max_length}."
            )

        assert theirs.max_length is not None
        saved = load_tokenizer(RunFolder(teacher.folder).tokenizer_file, theirs.max_length)
        if tokenizer is None or reading_of(saved) != reading_of(tokenizer):
            raise InputError(
                f"The teacher {teacher.folder} has another tokenizer than this backbone; "
                "distil between backbones that share one."
            )
    elif _grid(ours) != _grid(theirs):
        raise InputError(
            f"The teacher cuts an image into {'x'.join(map(str, _grid(theirs)))} patches, this run into "
            f"{'x'.join(map(str, _grid(ours)))}; choose data.image_size and backbone so that the grids agree."
        )


class Teacher:
    """A loaded teacher that answers batches.

    Its selection logits are those of its calibrated margins, so that the distribution it teaches is the one it decides
    by; `calibrated=False` leaves the bias out.
    """

    def __init__(
        self,
        facts: TeacherFacts,
        device: torch.device,
        student_image: dict[str, Any] | None,
        calibrated: bool = True,
    ) -> None:
        self.calibrated = calibrated
        self.model = RationaleModel.from_pretrained(facts.folder).to(device).requires_grad_(False)
        self._renormalise: list[Tensor] | None = None
        self._size: tuple[int, int] | None = None

        if student_image is not None and facts.config.image is not None:
            ours, theirs = ImageSettings.from_dict(student_image), ImageSettings.from_dict(facts.config.image)
            self._renormalise = [
                torch.tensor(numbers, dtype=torch.float32, device=device).view(3, 1, 1)
                for numbers in (ours.mean, ours.std, theirs.mean, theirs.std)
            ]

            if (ours.height, ours.width) != (theirs.height, theirs.width):
                self._size = (theirs.height, theirs.width)

    @torch.no_grad()
    def targets(self, batch: dict[str, Tensor], student_mask: Tensor | None = None) -> dict[str, Tensor]:
        """`teacher_selection_logits`, Z^T [batch, features, 2]; `teacher_mask`, its own deterministic one, bool
        [batch, features]; `teacher_logits`, Q^T [batch, classes] on that mask or on the student's. A `cls` teacher has
        the last alone.
        """
        inputs, attention_mask = self._inputs(batch), batch.get("attention_mask")
        selection = self.model.select(inputs, attention_mask)
        if selection.logits is None:
            return {"teacher_logits": self.model.classify(inputs, attention_mask, selection.feature, selection)}

        margin = self.model.margin(selection)
        z = selection.logits

        if self.calibrated:  # where there is no feature, there is no margin
            with_bias = torch.stack([torch.zeros_like(margin), margin], dim=-1)
            z = torch.where(selection.feature[..., None], with_bias, z.float())

        own = self.model.deterministic_mask(margin, selection)
        if student_mask is None:
            logits = self.model.classify(inputs, attention_mask, own, selection)
        else:
            logits = self.labels(batch, student_mask)

        return {"teacher_selection_logits": z, "teacher_mask": own, "teacher_logits": logits}

    @torch.no_grad()
    def labels(self, batch: dict[str, Tensor], student_mask: Tensor) -> Tensor:
        """Q^T [batch, classes] on a student's mask, floats [batch, features]: its predictor's alone."""
        inputs, attention_mask = self._inputs(batch), batch.get("attention_mask")
        feature, _ = self.model.feature_positions(inputs, attention_mask)
        seen = student_mask.detach() * feature  # a student that counts all positions may pick padding
        return self.model.classify(inputs, attention_mask, seen, Selection(feature))

    def _inputs(self, batch: dict[str, Tensor]) -> Tensor:
        if "input_ids" in batch:
            return batch["input_ids"]

        pixels = batch["pixel_values"]
        if self._renormalise is None:
            return pixels

        mean, std, teacher_mean, teacher_std = self._renormalise
        pixels = (pixels * std + mean - teacher_mean) / teacher_std

        if self._size is None:  # else the same grid of patches in another resolution
            return pixels

        return nn.functional.interpolate(pixels, self._size, mode="bilinear", antialias=True)


class Teachers:
    """One or several teachers that answer batches; each target has an axis for them, before that of classes."""

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        self.teachers = teachers

    def targets(self, batch: dict[str, Tensor], student_mask: Tensor | None = None) -> dict[str, Tensor]:
        """`teacher_selection_logits` [batch, features, teachers, 2], `teacher_mask` [batch, features, teachers] and
        `teacher_logits` [batch, teachers, classes]; see `Teacher.targets`.
        """
        each = [teacher.targets(batch, student_mask) for teacher in self.teachers]
        axes = {"teacher_selection_logits": 2, "teacher_mask": 2, "teacher_logits": 1}
        return {name: torch.stack([targets[name] for targets in each], dim=axes[name]) for name in each[0]}

    def labels(self, batch: dict[str, Tensor], student_mask: Tensor) -> Tensor:
        """`teacher_logits` [batch, teachers, classes] on a student's mask; see `Teacher.labels`."""
        return torch.stack([teacher.labels(batch, student_mask) for teacher in self.teachers], dim=1)


def reading_of(tokenizer: Tokenizer) -> Any:
    """Everything about a tokenizer that decides its ids."""
    parts = json.loads(tokenizer.to_str())
    return [parts.get(key) for key in ("normalizer", "pre_tokenizer", "model", "post_processor")]


def _grid(config: RationaleConfig) -> tuple[int, int]:
    assert config.image is not None
    settings = ImageSettings.from_dict(config.image)
    return settings.height // settings.patch_size, settings.width // settings.patch_size


def _listed(labels: list[str]) -> str:
    shown = ", ".join(labels[:5])
    return shown + (", …" if len(labels) > 5 else "")

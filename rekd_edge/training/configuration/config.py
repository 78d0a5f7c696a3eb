"""The settings of one run."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic.dataclasses import dataclass

from rekd_edge.data import DataSettings
from rekd_edge.errors import InputError
from rekd_edge.methods import METHODS, method_of
from rekd_edge.settings import LATER, Count, Seed, Text
from rekd_edge.training.configuration.groups import (
    EVERY,
    Control,
    Distillation,
    Optimisation,
    Process,
    Selection,
    group_of,
    readers_of,
)

__all__ = ["REMOVED", "TrainingConfig", "own_settings", "unused_by"]

REMOVED = {"ratio_descent": 0.0}
"""Settings of earlier releases that are gone, with the value that runs had which did without them."""

_PAPER: dict[str, dict[str, Any]] = {
    "text": {"target_ratio": 0.10, "lambda_select": 1e-4, "weight_decay": 0.0, "head_dropout": 0.5},
    "image": {"target_ratio": 0.15, "lambda_select": 1e-2, "weight_decay": 1e-3, "head_dropout": 0.1},
}
CONTROL = "control"
_SHALLOW = {"text": 1, "image": 2}
_ELSEWHERE = ("backbone", "teacher", "control")
"""Settings that name what a run is made of; its identity takes the content in their place."""


@dataclass(frozen=True)
class TrainingConfig(Process, Control, Optimisation, Distillation, Selection):
    """A training run. Defaults are those of arXiv 2601.22531; None means the paper's value for the modality."""

    readers = EVERY
    counts = True

    method: str = "re"
    """Of `METHODS`: `cls` (the whole input), `re` (equations 1-6), `rekd` (1-11), `plmr`, `rtp`."""
    spec: Text = ""
    """What to train on: the data SPEC (`data.spec` in a recipe)."""
    backbone: Text = ""
    """Hub name, local folder or `random:NAME`; after `bilstm:`, `cnn:` or `resnet:`, such a net on its features."""
    layers: Count | None = None
    """Keep the predictor's first K layers; a net of another family has K (by default 1 for `bilstm`, else 2)."""
    pooling: Literal["first", "mean"] = "first"
    """What the predictor's classifier reads: the `first` position (paper), or the `mean` of what is visible, which
    learns in hundreds of steps what the first position learns in thousands."""
    final_norm: Annotated[bool, LATER] = True
    """Normalise the last hidden states of a ViT predictor before its classifier reads them; false is the published code
    of the paper."""
    teacher: Text | None = None
    """The run to distil from, for `cls` a `cls` run; several, separated by commas, are averaged."""
    seed: Seed = 2026

    data: DataSettings = field(default_factory=DataSettings)
    options: Any = None
    """The method's own settings, its section of a recipe; their defaults if None."""
    asked: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    """Keys that someone asked for in this very run, which are refused where they have no effect."""

    def __post_init__(self) -> None:
        """Take the method's defaults, and refuse settings that contradict each other.

        Raises:
            InputError: as said.
        """
        method = method_of(self.method)
        if self.options is None:
            object.__setattr__(self, "options", own_settings(self.method))

        if self.max_selected is not None and self.max_selected < self.min_selected:
            raise InputError(
                f"min_selected is {self.min_selected} and max_selected {self.max_selected}; a rationale cannot be both."
            )
        if self.teacher and not all(name.strip() for name in self.teacher.split(",")):
            raise InputError(f"--teacher {self.teacher!r} names no run; give folders, separated by commas.")
        if self.teacher and not method.selects and self.distil == "rationale":
            raise InputError(f"{self.method} has no rationale to distil; set distil=both or distil=prediction.")
        if method.needs_teacher and not self.teacher:
            raise InputError(f"{self.method} distils from a teacher; give --teacher the folder of a finished re run.")
        if method.teacher == "never" and self.teacher:
            raise InputError(f"{self.method} takes no teacher; use --method rekd or leave --teacher out.")
        if self.select_words and self.count_all_positions:
            raise InputError("select_words and count_all_positions exclude each other: padding belongs to no word.")
        if self.share_embeddings and self.freeze_embeddings == "generator":
            raise InputError("Shared embeddings cannot be frozen for the generator alone; freeze all of them, or none.")
        if self.generator == "local" and self.freeze_embeddings == "generator":
            raise InputError("A local generator reads the predictor's embeddings; freeze all of them, or none.")
        if self.warm_start and self.control is None and method.selects:
            raise InputError("warm_start begins from the control; set control=train or the path of a run that has one.")

        self._refuse_idle(None)

    @classmethod
    def fields_by_key(cls) -> dict[str, str]:
        """Every key as `--set` takes it, but those of data and methods, and the name of its field."""
        own = {key: name for key, name in super().fields_by_key().items() if key not in ("data", "options", "asked")}
        del own["spec"]
        return {"data.spec": "spec", **own}

    def resolved(self, task: str) -> TrainingConfig:
        """The same run with the paper's values for a modality (`text` or `image`) in place of None.

        Raises:
            InputError: a setting that was asked for has no effect on this kind of data.
        """
        self._refuse_idle(task)
        method = method_of(self.method)

        defaults = {**_PAPER[task], "epochs": method.epochs}

        if method.needs_teacher and self.mask_mode == "drop" and self.generator is None:
            defaults["generator_layers"] = min(_SHALLOW[task], self.layers or _SHALLOW[task])

        defaults["head_learning_rate"] = self.learning_rate
        if task == "text" and self.generator == "local":
            defaults["round_embeddings"] = True

        filled = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        if not method.selects:
            filled["teacher_mask"] = "own"  # the student has no mask to show

        return dataclasses.replace(self, **filled)

    def ratios(self, labels: tuple[str, ...]) -> list[float]:
        """p_target of each label of a resolved run.

        Raises:
            InputError: `class_ratios` names a label that the data does not have.
        """
        assert self.target_ratio is not None
        given = self.class_ratios or {}
        if unknown := sorted(given.keys() - set(labels)):
            raise InputError(f"class_ratios names {unknown[0]!r}; the labels are {', '.join(labels)}.")
        return [given.get(label, self.target_ratio) for label in labels]

    def with_method(self, method: str, **changes: Any) -> TrainingConfig:
        """The same settings for another method, whose own ones are the defaults."""
        return dataclasses.replace(self, method=method, options=None, asked=frozenset(), **changes)

    def for_control(self, **changes: Any) -> TrainingConfig:
        """The settings of this run's random-mask control: those that a control reads, the rest at their defaults."""
        fields = self.__pydantic_fields__  # type: ignore[attr-defined]
        plain = {name: fields[name].default for name in unused_by(CONTROL)}
        once = {"teacher": None, "control": None, "control_epochs": None, "class_ratios": None}
        return self.with_method(CONTROL, **{**plain, **once, **changes})

    def to_dict(self) -> dict[str, Any]:
        """A recipe: nested plain values that `load_config` takes back."""
        fields = dataclasses.asdict(self)
        del fields["asked"]
        options, data = fields.pop("options"), {"spec": fields.pop("spec"), **fields.pop("data")}
        return {**fields, "data": data, **({} if options is None else {self.method: options})}

    def identity(self) -> dict[str, Any]:
        """The settings that a run's figures depend on, without the names of backbone, teacher and control.

        Runs of the first release have the same one: a setting that came later is in it where it is not at its default,
        and one that was removed stays.
        """
        method = method_of(self.method)
        taught = bool(self.teacher) or (method.selects and method.teacher != "never")  # as the first release has it
        facts = {**REMOVED, **self.to_dict()} if method.selects else self.to_dict()

        facts["spec"] = facts["data"].pop("spec")  # as the first release has it
        for settings, later in ((facts, self.later()), (facts["data"], self.data.later())):
            for name in [name for name, default in later.items() if settings[name] == default]:
                del settings[name]

        for name in facts.keys() & self.fields_by_key().values():
            read = readers_of(type(self), name).include(method, taught)
            if not read or not group_of(type(self), name).counts or name in _ELSEWHERE:
                del facts[name]

        return facts

    def _refuse_idle(self, task: str | None) -> None:
        """Refuse settings that were asked for and have no effect on this run; `task` where it is known."""
        for key in sorted(self.asked):
            if reason := self._why_idle(key, task):
                raise InputError(f"{key} has no effect on this run: {reason}; leave it out.")

    def _why_idle(self, key: str, task: str | None) -> str | None:
        section, _, name = key.rpartition(".")
        if section == "data":
            reads = DataSettings.task_of(name) if name != "spec" else None
            return f"the data is {task}" if task and reads not in (None, task) else None

        if section:
            return None if section == self.method else f"it belongs to {section}, and the method is {self.method}"

        if getattr(self, name) is None:  # null asks for nothing
            return None

        method, readers = method_of(self.method), readers_of(type(self), name)
        if name in method.ignores:
            return f"{self.method} does not read it"

        if not readers.include(method, bool(self.teacher)):
            may = readers.include(method, method.teacher != "never")
            return "no teacher is given" if may else f"{self.method} {readers.others}"

        if name == "control_epochs" and not (self.control == "train" and self.warm_start):
            return "no control is trained that a warm start begins from"
        if name == "comparison_control" and self.control is None:
            return "there is no control"
        if name in ("generator_width", "generator_context") and self.generator != "local":
            return "its generator is not local"

        return None


def own_settings(method: str, given: dict[str, Any] | None = None) -> Any:
    """A method's own settings; None where it has none.

    Raises:
        InputError: one of them is unknown or cannot be used.
    """
    settings = getattr(method_of(method).training(), "Settings", None)
    return None if settings is None else settings(**given or {})


def unused_by(method: str, taught: bool = False) -> frozenset[str]:
    """Settings that have no effect on the runs of a method, with or without a teacher."""
    entry = METHODS[method]
    names = TrainingConfig.fields_by_key().values()
    unread = [name for name in names if not readers_of(TrainingConfig, name).include(entry, taught)]
    return frozenset((*unread, *entry.ignores))

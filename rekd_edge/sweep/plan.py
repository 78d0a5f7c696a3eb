"""From a grid to its runs: every one with its settings and the runs that it needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.methods import METHODS
from rekd_edge.sweep.rows import SAME_SEED, Grid, Row, Values, Variant
from rekd_edge.training.configuration import TrainingConfig, load_config, unused_by
from rekd_edge.training.control import controls_of

__all__ = ["CONTROL", "Choice", "Run", "closure", "expand"]

CONTROL = "control"
_STANDS_FOR = "re"
"""The method whose controls serve all methods with its model."""
_OF_STEPS = frozenset(("control", "control_epochs", "predictor_epochs", "warm_start"))
"""Settings that a control does not read, but that decide which controls exist and how long they train."""


@dataclass(frozen=True)
class Choice:
    """Settings that are picked once all runs of a tuning row are finished."""

    row: str
    candidates: tuple[tuple[Values, tuple[str, ...]], ...]
    """The values that were tried, each with the names of its runs."""


@dataclass(frozen=True)
class Run:
    """One training of the sweep: of a method, or of the controls that runs share."""

    name: str
    row: str
    """Its row of the grid; a control has the row of the first run that needs it."""
    line: str
    """The method's name in the row."""
    role: str
    method: str
    seed: int
    settings: dict[str, Any]
    """Overrides of the recipe, without teacher, control and what is picked."""
    recipe: str | None = None
    values: Values = ()
    """The values that `vary` or `tune` gave it."""
    teacher: str | None = None
    """Name of a run."""
    control: str | None = None
    """Name of a run; `train` to train its own controls, None to have none."""
    choices: tuple[Choice, ...] = ()
    tunes: bool = False
    """Whether it is a candidate of a tuning row, and so never measured on test."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs that must be finished first."""
        named = [self.teacher, self.control if self.control != "train" else None]
        picked = [name for choice in self.choices for _, runs in choice.candidates for name in runs]
        return tuple(dict.fromkeys([name for name in named if name is not None] + picked))

    def config(self, teacher: str | None, control: str | None, picked: dict[str, Any]) -> TrainingConfig:
        """Its settings.

        Args:
            teacher: the folder of the run that teaches.
            control: the folder of its controls, `train`, or None.
            picked: what tuning rows decided.

        Raises:
            InputError: a setting is unknown or out of range, or settings contradict each other.
        """
        places = {"teacher": teacher, "control": control}
        method = _STANDS_FOR if self.trains_controls else self.method
        return load_config(self.recipe, {**self.settings, **picked, **places, "method": method, "seed": self.seed})

    @property
    def trains_controls(self) -> bool:
        """Whether it trains the controls of other runs."""
        return METHODS[self.method].is_control


def expand(grid: Grid) -> dict[str, Run]:
    """Every run of a grid by name: dependencies first, otherwise seed by seed in the grid's order.

    Students of one seed with identical controls share them; the controls are a run of their own.

    Raises:
        InputError: the settings of a run cannot be used.
    """
    return _Expansion(grid).runs()


def closure(name: str, plan: dict[str, Run]) -> dict[str, Run]:
    """A run and its dependencies, direct and indirect."""
    closed: dict[str, Run] = {}

    def visit(name: str) -> None:
        if name not in closed:
            closed[name] = plan[name]
            for needed in plan[name].needs:
                visit(needed)

    visit(name)

    return closed


class _Expansion:
    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.plan: dict[str, Run] = {}
        self.controls: dict[str, str] = {}
        self.configs: dict[str, TrainingConfig] = {}

    def runs(self) -> dict[str, Run]:
        seeds = dict.fromkeys(seed for row in self.grid.rows.values() for seed in row.seeds)
        for seed in seeds:
            for row in self.grid.rows.values():
                if seed in row.seeds:
                    for variant in row.variants.values():
                        for values in row.lines(variant.name):
                            self.add(row, variant, values, seed)

        return self.plan

    def add(self, row: Row, variant: Variant, values: Values, seed: int) -> str:
        """Plan a run after its dependencies, and return its name."""
        name = run_name(row.name, variant.name, values, seed)
        if name in self.plan:
            return name

        method = variant.method
        settings = {**variant.settings, **dict(values)}
        settings |= _absolute_places(self.config(variant, settings))
        choices = self.choices(variant)
        config = self.config(variant, settings)

        control = config.control if METHODS[method].selects else None
        if control not in (None, "train"):
            raise InputError(f"Row {row.name!r} names the control {control}; set control to train or null in a sweep.")

        # controls of another model are trained within their run
        alike = METHODS[method].model == METHODS[CONTROL].model and not config.class_ratios
        if control == "train" and alike:
            control = self.add_controls(row, values, settings, choices, config, seed)

        teacher = None if variant.teacher is None else self.teacher(row, variant, values, seed)
        self.plan[name] = Run(
            name,
            row.name,
            variant.name,
            row.role,
            method,
            seed,
            settings,
            self.grid.recipe,
            values,
            teacher,
            control,
            choices,
            bool(row.tune),
        )
        return name

    def config(self, variant: Variant, settings: dict[str, Any]) -> TrainingConfig:
        """The settings of a line, checked once for all its seeds."""
        fields = {**settings, "method": variant.method, "teacher": variant.teacher}
        key = json.dumps(fields, default=str)
        if key not in self.configs:
            self.configs[key] = load_config(self.grid.recipe, fields)
        return self.configs[key]

    def add_controls(
        self,
        row: Row,
        values: Values,
        settings: dict[str, Any],
        choices: tuple[Choice, ...],
        config: TrainingConfig,
        seed: int,
    ) -> str | None:
        """Plan the controls of a run unless they are planned, and return their name; None if it has none."""
        controls = controls_of(config)
        if not controls:
            return None

        deciding = tuple(choice for choice in choices if any(map(_shapes_controls, dict(choice.candidates[0][0]))))
        key = json.dumps([seed, [choice.row for choice in deciding], [each.config.to_dict() for each in controls]])
        if key not in self.controls:
            shaping = tuple((key, value) for key, value in values if _shapes_controls(key))
            name = run_name(row.name, CONTROL, shaping, seed)
            number = 2

            while name in self.plan:
                name, number = run_name(row.name, f"{CONTROL}{number}", shaping, seed), number + 1

            self.plan[name] = Run(
                name,
                row.name,
                CONTROL,
                row.role,
                CONTROL,
                seed,
                settings,
                self.grid.recipe,
                control="train",
                choices=deciding,
            )
            self.controls[key] = name

        return self.controls[key]

    def teacher(self, row: Row, variant: Variant, values: Values, seed: int) -> str:
        """The run that teaches: with the teacher's seed, and with the same values if the teacher varies too."""
        assert variant.teacher is not None
        source = self.grid.rows[variant.teacher]
        teaching = source.teaching(variant.method)
        given = dict(values)

        lines = [line for line in source.lines(teaching.name) if all(given.get(key) == value for key, value in line)]
        if len(lines) != 1:
            raise InputError(f"Row {row.name!r} must vary what its teacher {source.name!r} varies, by the same values.")

        first = source.seeds[0] if variant.teacher_seed is None else variant.teacher_seed
        return self.add(source, teaching, lines[0], seed if first == SAME_SEED else first)

    def choices(self, variant: Variant) -> tuple[Choice, ...]:
        """What the rows of `tuned` decide for this variant."""
        choices = []
        for name in variant.tuned:
            source = self.grid.rows[name]
            if source.tune.keys() <= variant.unused:
                continue

            (tuning,) = source.variants.values()
            candidates = [
                (values, tuple(self.add(source, tuning, values, seed) for seed in source.seeds))
                for values in source.lines(tuning.name)
            ]
            choices.append(Choice(name, tuple(candidates)))

        return tuple(choices)


def _shapes_controls(setting: str) -> bool:
    """Whether the controls of a run depend on a setting."""
    return setting in _OF_STEPS or setting not in unused_by(CONTROL)


def _absolute_places(config: TrainingConfig) -> dict[str, str]:
    """Local files and folders as absolute paths: a worker may have another working directory."""
    if not config.spec or not config.backbone:
        raise InputError("A sweep needs data and a backbone; add --set data.spec=SPEC and --set backbone=NAME.")

    places = {}
    if Path(config.spec).exists():
        places["data.spec"] = str(Path(config.spec).resolve())

    family, parted, place = config.backbone.rpartition(":")
    if Path(place).is_dir():
        places["backbone"] = f"{family}{parted}{Path(place).resolve()}"

    return places


def run_name(row: str, method: str, values: Values, seed: int) -> str:
    """A name that can be a folder's too: row, method, values and seed."""
    words = [f"{key}-{_plain(value)}" for key, value in values]
    return "-".join([row, method, *words, str(seed)])


def _plain(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isalnum() or c in "._+" else "_" for c in text)

"""The rows of a grid: which methods each has, under which names, and which lines they make in the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from rekd_edge.errors import InputError
from rekd_edge.methods import METHODS
from rekd_edge.training.configuration import unused_by

__all__ = ["SAME_SEED", "Grid", "Row", "Values", "Variant"]

Values = tuple[tuple[str, Any], ...]
"""Settings and the values that `vary` or `tune` gave them, in the grid's order."""

SAME_SEED: Literal["same"] = "same"


@dataclass(frozen=True)
class Variant:
    """A method of a row with its settings and its teacher, under its name in the table."""

    name: str
    method: str
    settings: dict[str, Any]
    """All levels merged."""
    teacher: str | None = None
    """The row that teaches it."""
    teacher_seed: int | Literal["same"] | None = None
    tuned: tuple[str, ...] = ()
    """The rows whose picked settings it takes."""

    @property
    def unused(self) -> frozenset[str]:
        """Settings that have no effect on its runs."""
        return unused_by(self.method, self.teacher is not None)


@dataclass(frozen=True)
class Row:
    """A model of the table, with a line for each method and each value that it varies or tunes."""

    name: str
    role: str
    variants: dict[str, Variant]
    """By their names."""
    seeds: tuple[int, ...]
    vary: dict[str, list[Any]] = field(default_factory=dict)
    tune: dict[str, list[Any]] = field(default_factory=dict)
    published: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Variant to the published figure of each of its lines."""

    def lines(self, name: str) -> list[Values]:
        """The values of each line that a variant has."""
        unused = self.variants[name].unused
        axes = {key: values for key, values in {**self.vary, **self.tune}.items() if key not in unused}
        return [tuple(zip(axes, values, strict=True)) for values in product(*axes.values())]

    def teaching(self, student: str) -> Variant:
        """The variant whose run teaches students of a method.

        It is `re`, or the only one that selects; for `cls` students `cls`, or the only one that does not.

        Raises:
            InputError: there is none.
        """
        selects = METHODS[student].selects
        able = {name: each for name, each in self.variants.items() if METHODS[each.method].selects == selects}

        wanted = "re" if selects else "cls"
        if wanted not in able and len(able) != 1:
            raise InputError(
                f"Row {self.name!r} is named as a teacher of {student}, and has no {wanted} run; add {wanted} to its "
                "methods."
            )

        return able.get(wanted) or next(iter(able.values()))


@dataclass(frozen=True)
class Grid:
    """Rows with the seeds and settings that they share."""

    name: str
    title: str
    rows: dict[str, Row]
    source: str = ""
    recipe: str | None = None

"""Typed settings: groups of fields that pydantic checks, and one sentence for whatever is wrong with a value.

A group is a frozen dataclass whose types say what a setting takes:

    @dataclass(frozen=True)              # pydantic.dataclasses
    class Settings(Section):
        section = "plmr"                 # its keys are plmr.temperature, …
        temperature: Positive = 1.0
        gap: Literal["hinge", "signed"] = "hinge"

Values may be typed, as YAML gives them, or the text of a `--set`.
"""

from __future__ import annotations

import difflib
import math
import reprlib
import types
import typing
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Union

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from rekd_edge.errors import InputError

__all__ = [
    "LATER",
    "Count",
    "Epochs",
    "NotNegative",
    "Positive",
    "Ratio",
    "Section",
    "Seed",
    "Share",
    "Text",
    "hints_of",
    "nearest",
    "one_sentence",
    "refuse_unknown",
    "shown",
    "shown_key",
    "spelled",
]

LATER = "later"
"""In the `Annotated` of a setting that the first release did not have. At its default it is no part of a run's
identity, so that runs made before it are recognised."""

Count = Annotated[int, Field(ge=1, le=65_536)]
"""Layers, rows of a batch, features: no run comes near the upper end."""
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What NumPy and scikit-learn take."""
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(gt=0, le=1)]
"""Of features selected: not none of them."""
Text = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A name or path, without control characters."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Section:
    """A group of settings.

    Raises:
        InputError: a key is unknown, or a value is of another type or out of range; one sentence names the key, what
            it takes and what was given.
    """

    section: ClassVar[str] = ""
    """What stands before its keys: `data` for `data.max_length`."""

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_sentence(cls, given: Any, build: Any) -> Any:
        try:
            return build(given)
        except ValidationError as error:
            raise InputError(one_sentence(cls, error)) from error

    @field_validator("*", mode="before")
    @classmethod
    def _as_it_was_meant(cls, value: Any, info: Any) -> Any:
        """Read the text of a `--set`, and keep numbers and truth values apart, which pydantic would convert."""
        kinds = _kinds(cls, info.field_name)
        if type(None) in kinds and (value is None or str(value).lower() in ("null", "none", "")):
            return None
        if isinstance(value, str) and dict in kinds:
            return _pairs(value)
        truth = isinstance(value, bool) or str(value).lower() in ("true", "false")
        if bool in kinds and int not in kinds and not truth:
            raise ValueError("neither true nor false")
        if isinstance(value, bool) and not {bool, Any} & kinds:
            raise ValueError("a truth value is no number")

        return value

    @classmethod
    def later(cls) -> dict[str, Any]:
        """Settings that the first release did not have, and their defaults."""
        fields = cls.__pydantic_fields__  # type: ignore[attr-defined]
        return {name: field.default for name, field in fields.items() if LATER in field.metadata}

    @classmethod
    def fields_by_key(cls) -> dict[str, str]:
        """Every key of the group as `--set` takes it, and the name of its field."""
        before = f"{cls.section}." if cls.section else ""
        return {before + name: name for name in hints_of(cls)}


def hints_of(group: Any) -> dict[str, Any]:
    """The type of each field of a group, with what `Annotated` adds."""
    return _hints(group)


@lru_cache
def _hints(group: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(group, include_extras=True)
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not ClassVar}


def spelled(hint: Any) -> str:
    """What a setting of some type takes, in words."""
    if typing.get_origin(hint) is Annotated:
        base, *extras = typing.get_args(hint)
        limits = [limit for extra in extras if isinstance(extra, FieldInfo) for limit in extra.metadata]
        return spelled(base) + _bounds({name: getattr(each, name) for each in limits for name in _limits_of(each)})

    if typing.get_origin(hint) in (Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return " or ".join(map(spelled, options)) + (", or null" if type(None) in typing.get_args(hint) else "")

    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"

    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(hint, "pairs KEY:NUMBER,KEY:NUMBER" if typing.get_origin(hint) is dict else "another value")


def shown(value: Any) -> str:
    """A value from outside as an error may print it: short, and without control characters."""
    try:
        return _BRIEF.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a number of {math.floor(value.bit_length() * math.log10(2)):,} digits"


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key that a mistyped one resembles most; None where none is like it."""
    known = list(known)
    whole = {part: name for name in reversed(known) for part in (name.rpartition(".")[2], name.partition(".")[0])}
    if (meant := whole.get(key) or whole.get(key.rpartition(".")[2])) is not None:
        return meant

    section = f"{key.rpartition('.')[0]}."
    if section != "." and all(name.startswith(section) for name in known):  # what all share makes none alike
        bare = nearest(key.removeprefix(section), [name.removeprefix(section) for name in known])
        return None if bare is None else section + bare

    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=0.7)), None)


def refuse_unknown(key: Any, known: Iterable[str]) -> NoReturn:
    """Say that there is no such setting, and which one may have been meant.

    Raises:
        InputError: always.
    """
    known = list(known)
    meant = nearest(str(key), known)
    hint = f"did you mean {meant}?" if meant is not None else f"known are {', '.join(known)}."
    raise InputError(f"Unknown setting {shown(key)}; {hint}")


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80
_BRIEF.maxlevel = 2


def one_sentence(group: Any, error: ValidationError) -> str:
    """What pydantic found wrong with a group: the key, what it takes, and what was given.

    Raises:
        InputError: a key is unknown.
    """
    found = error.errors(include_url=False, include_context=False)[0]
    before = f"{group.section}." if getattr(group, "section", "") else ""
    name, *within = (str(part) for part in found["loc"])

    if found["type"] == "unexpected_keyword_argument":
        refuse_unknown(before + name, [before + known for known in hints_of(group)])
    if found["type"] == "missing":
        return f"{before}{name} is missing."

    hint = hints_of(group)[name]
    key = before + name
    if within and (value := next(_values_of_containers(hint), None)) is not None:
        hint = value
        key = ".".join([key, *(part for part in within if part != "[key]")])

    return f"{shown_key(key)} must be {spelled(hint)}, not {shown(found['input'])}."


def shown_key(key: str) -> str:
    """A key from outside as an error may print it."""
    return key if key.isprintable() and len(key) <= 80 else shown(key)


def _values_of_containers(hint: Any) -> Iterator[Any]:
    if typing.get_origin(hint) in (dict, list):
        yield typing.get_args(hint)[-1]
    for inner in typing.get_args(hint):
        yield from _values_of_containers(inner)


def _kinds(group: Any, name: str) -> frozenset[Any]:
    """The plain types that a field may hold."""

    def plain(hint: Any) -> Iterator[Any]:
        origin = typing.get_origin(hint)
        if origin is Annotated:
            yield from plain(typing.get_args(hint)[0])
        elif origin in (Union, types.UnionType):
            for option in typing.get_args(hint):
                yield from plain(option)
        else:
            yield origin or hint

    return frozenset(plain(hints_of(group)[name]))


def _pairs(value: str) -> dict[str, str] | str:
    """`neg:0.05,pos:0.2` as a mapping; the text itself where it is none."""
    pairs = [part.strip().rpartition(":") for part in value.split(",")]
    return {key: number for key, _, number in pairs} if all(key for key, _, _ in pairs) else value


def _limits_of(limit: Any) -> list[str]:
    return [
        name for name in ("gt", "ge", "lt", "le", "min_length", "multiple_of") if getattr(limit, name, None) is not None
    ]


def _bounds(limits: dict[str, Any]) -> str:
    """`from 1 to 9`, `above 0 and at most 1`, …"""
    if factor := limits.pop("multiple_of", None):
        return f"{_bounds(limits)} that is a multiple of {factor}"
    if limits.pop("min_length", None):
        return " that is not empty"
    if limits.keys() == {"ge", "le"}:
        return f" from {limits['ge']} to {limits['le']}"

    words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "at most"}
    spoken = [f"{word} {limits[name]}" for name, word in words.items() if name in limits]
    return f" {' and '.join(spoken)}" if spoken else ""

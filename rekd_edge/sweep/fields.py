"""Typed values of a YAML mapping; `where` names the place in error messages."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.settings import nearest, shown

__all__ = ["axes", "known", "mapping", "text", "texts", "whole"]


def axes(given: Any, where: str) -> dict[str, list[Any]]:
    """Settings and the values that each takes in turn."""
    settings = mapping(given, where)
    for key, values in settings.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where} takes a list of values for {key}, not {shown(values)}.")
    return settings


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A mapping with text keys; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a mapping of keys to values, not {shown(value)}.")
    for key in value:
        if not isinstance(key, str):  # YAML has others, null among them
            raise InputError(f"The key {shown(key)} in {where} must be a text; write it in quotes.")

    return value


def text(value: Any, where: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise InputError(f"{where} must be a text, not {shown(value)}.")
    return value


def texts(value: Any, where: str) -> tuple[str, ...]:
    """A text or a list of texts; None is an empty list."""
    given = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise InputError(f"{where} must name rows, not {shown(value)}.")
    return tuple(given)


def whole(value: Any, where: str, lowest: int = 1, highest: int = 2**32 - 1) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise InputError(f"{where} must be a whole number from {lowest} to {highest}, not {shown(value)}.")
    return value


def known(fields: dict[str, Any], keys: Collection[str], where: str) -> None:
    """Refuse unknown keys."""
    for key in fields:
        if key not in keys:
            meant = nearest(key, keys)
            hint = f"known are {', '.join(keys)}." if meant is None else f"did you mean {meant}?"
            raise InputError(f"Unknown key {shown(key)} in {where}; {hint}")

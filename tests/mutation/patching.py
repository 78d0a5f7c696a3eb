"""Put a mutated source in the place of a module that is imported already, in a process that ends soon afterwards.

Importing the package and collecting its tests takes longer than most tests; here it is done once for all mutants of a
module. Functions and methods keep their identity and get the new code, so that whoever imported them has it too.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import suppress
from types import CellType, FunctionType, ModuleType
from typing import Any

__all__ = ["replace_in_place"]


def replace_in_place(module: ModuleType, source: str) -> None:
    """Give everything that a module defines the code and the values of another source.

    Raises:
        Exception: whatever the new source raises when it is imported.
    """
    fresh = ModuleType(module.__name__)
    for name in ("__file__", "__package__", "__path__", "__spec__", "__loader__"):
        if hasattr(module, name):
            setattr(fresh, name, getattr(module, name))
    exec(compile(source, str(module.__file__), "exec"), vars(fresh))

    for name, new in list(vars(fresh).items()):
        old = vars(module).get(name)
        if name.startswith("__") or new is old:
            continue

        if isinstance(new, type) and isinstance(old, type):
            replace_class(old, new)
        elif function_of(new) is not None and function_of(old) is not None:
            replace_function(function_of(old), function_of(new))
        else:
            replace_value(name, old, new)


def function_of(value: Any) -> FunctionType | None:
    """The function behind decorators, properties and class methods."""
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if callable(value) and not isinstance(value, type):
        value = inspect.unwrap(value)
    return value if isinstance(value, FunctionType) else None


def replace_function(old: FunctionType | None, new: FunctionType | None) -> None:
    """Code, defaults, and what the code closes over."""
    assert old is not None
    assert new is not None
    for name, mine, other in zip(old.__code__.co_freevars, cells(old), cells(new), strict=True):
        if name != "__class__":
            mine.cell_contents = other.cell_contents
    old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def cells(function: FunctionType) -> tuple[CellType, ...]:
    return function.__closure__ or ()


def replace_class(old: type, new: type) -> None:
    """Methods get their new code, and attributes their new values."""
    for name, value in list(vars(new).items()):
        before = vars(old).get(name)
        if name in ("__dict__", "__weakref__", "__doc__", "__module__") or value is before:
            continue
        if function_of(value) is not None and function_of(before) is not None:
            replace_function(function_of(before), function_of(value))
        else:
            with suppress(AttributeError, TypeError):
                setattr(old, name, value)


def replace_value(name: str, old: Any, new: Any) -> None:
    """A constant, in every module that has imported it under its name."""
    for module in list(sys.modules.values()):
        if vars(module).get(name) is old and (module.__name__.startswith(("rekd_edge", "test_", "tests."))):
            setattr(module, name, new)

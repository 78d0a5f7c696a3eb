"""Recipes and overrides to the settings of a run.

Both are flattened to one table of keys (`alpha`, `data.max_length`, `plmr.gap`), where overrides win; the table is then
sorted into the groups that check its values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rekd_edge.data import DataSettings
from rekd_edge.errors import InputError
from rekd_edge.methods import METHODS
from rekd_edge.settings import refuse_unknown
from rekd_edge.training.configuration.config import REMOVED, TrainingConfig, own_settings

__all__ = ["SECTIONS", "all_keys", "load_config", "read_yaml", "shipped_recipes"]

SECTIONS = ("data", *(name for name, method in METHODS.items() if method.settings))
"""The nested parts of a recipe: the data's, and those of the methods that have settings of their own."""

_RECIPES = Path(__file__).parent.parent / "recipes"
_LARGEST = 1 << 20
"""Bytes of a recipe or grid."""


def load_config(recipe: Path | str | None, overrides: dict[str, Any], strict: bool = False) -> TrainingConfig:
    """Build a run's settings from a recipe and from overrides, which win.

    Args:
        recipe: a YAML file, or the name of a shipped recipe; None for the defaults alone.
        overrides: dotted keys (`data.max_length`) to values or to strings as `--set` gives them.
        strict: refuse an override that has no effect on the run, as one that somebody typed for it.

    Raises:
        InputError: unreadable recipe, unknown key, wrong type or value, an override without effect.
    """
    given = {} if recipe is None else _flat(_read_recipe(recipe))
    asked = {_canonical(key): value for key, value in overrides.items()}
    given |= asked

    fields: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    known = TrainingConfig.fields_by_key()

    for key, value in given.items():
        section, _, name = key.rpartition(".")
        if key in REMOVED:
            _check_removed(key, value)
        elif key in known:
            fields[known[key]] = value
        elif section in SECTIONS:
            sections[section][name] = value
        else:
            refuse_unknown(key, all_keys())

    data = sections.pop("data")
    own = {name: own_settings(name, section) for name, section in sections.items() if section}  # checked even if unused
    fields["options"] = own.get(str(fields.get("method", "re")))

    return TrainingConfig(**fields, data=DataSettings(**data), asked=frozenset(asked) if strict else frozenset())


def all_keys() -> list[str]:
    """Every setting as `--set` takes it."""
    groups = [DataSettings, *(METHODS[name].training().Settings for name in SECTIONS if name in METHODS)]
    return [*TrainingConfig.fields_by_key(), *(key for group in groups for key in group.fields_by_key())]


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _RECIPES.glob("*.yaml"))


def read_yaml(path: Path, name: str) -> Any:
    """The document in a YAML file; None where it is empty.

    Raises:
        InputError: it cannot be read; `name` is what the sentence calls it.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{name} is larger than {_LARGEST >> 20} MiB and no recipe or grid; name another file.")
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}); check the path and its permissions.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # besides its own errors, PyYAML raises ValueError for a date or number that is none
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{name} is not valid YAML: {reason}.") from error


def _read_recipe(recipe: Path | str) -> dict[Any, Any]:
    path = Path(recipe)
    if not path.is_file():
        path = _RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        raise InputError(f"There is no recipe {recipe}; give a YAML file or one of {', '.join(shipped_recipes())}.")

    fields = read_yaml(path, str(recipe)) or {}
    if not isinstance(fields, dict):
        raise InputError(f"{recipe} must be a mapping of settings.")

    return fields


def _flat(recipe: dict[Any, Any]) -> dict[str, Any]:
    """The dotted keys of a recipe."""
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        if key not in SECTIONS:
            flat[_canonical(str(key))] = value
            continue

        if not isinstance(value, dict | None):
            raise InputError(f"`{key}` in a recipe is a mapping, for example data: {{spec: imdb, max_length: 256}}.")

        flat |= {f"{key}.{name}": each for name, each in (value or {}).items()}

    return flat


def _canonical(key: str) -> str:
    return "data.spec" if key == "spec" else key


def _check_removed(key: str, value: Any) -> None:
    if str(value) not in (str(REMOVED[key]), "0"):
        raise InputError(f"{key} was removed; leave it out.")

"""Hold a JSON document against a JSON Schema, and read JSON within bounds. Needs the standard library alone.

A device checks every manifest at load, and a validator from a package would cost it 35 to 76 ms for that (see
docs/decisions.md). This one knows the keywords that `manifest.schema.json` uses, refuses others, and is held against
`jsonschema` by a test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["manifest_schema", "parse_json", "violation"]

Schema = Mapping[str, Any]
ANNOTATIONS = {"$schema", "$defs", "title", "description"}


def parse_json(raw: bytes) -> Any:
    """Read one JSON document as RFC 8259 has it: UTF-8, finite numbers, and no name twice in an object.

    Raises:
        ValueError: it is not such a document.
        RecursionError: it is nested too deeply.
    """
    return json.loads(
        raw.decode("utf-8"),
        object_pairs_hook=_object,
        parse_float=_finite,
        parse_constant=_finite,
    )


@cache
def manifest_schema() -> Schema:
    """The schema of a bundle's manifest."""
    return json.loads(Path(__file__).with_name("manifest.schema.json").read_text(encoding="utf-8"))


def violation(value: Any, schema: Schema, root: Schema | None = None, path: str = "") -> str | None:
    """Where a document first breaks a schema, or None if it keeps to it.

    Args:
        value: what `json.loads` gave.
        schema: JSON Schema, draft 2020-12; only the keywords below.
        root: the document in which `$ref` looks, the schema itself by default.
        path: of `value` within its document, for the message.

    Raises:
        NotImplementedError: the schema uses a keyword that is not known here.
    """
    root = schema if root is None else root
    place = path or "the document"

    for keyword, rule in schema.items():
        if keyword in ANNOTATIONS:
            continue

        if keyword == "$ref":
            found = violation(value, root["$defs"][rule.rpartition("/")[2]], root, path)
        elif keyword == "anyOf":
            titles = [each.get("title", json.dumps(each)) for each in rule]
            fits = any(violation(value, each, root, path) is None for each in rule)
            found = None if fits else f"{place} is neither {' nor '.join(titles)}"
        elif keyword in _WITHIN:
            found = _within(keyword, rule, value, schema, root, path)
        elif keyword in _CHECKS:
            kinds, holds, words = _CHECKS[keyword]
            wrong = isinstance(value, kinds) and not isinstance(value, bool) and not holds(value, rule)
            found = f"{place} {words.format(rule)}" if wrong else None
        elif keyword in ("type", "enum", "const"):
            found = _exact(keyword, rule, value, place)
        else:
            raise NotImplementedError(f"schema keyword {keyword!r}")

        if found is not None:
            return found

    return None


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
}
_NUMBER = (int, float)
_CHECKS: dict[str, tuple[Any, Callable[[Any, Any], bool], str]] = {
    "minimum": (_NUMBER, lambda value, rule: value >= rule, "is below {}"),
    "maximum": (_NUMBER, lambda value, rule: value <= rule, "is above {}"),
    "exclusiveMinimum": (_NUMBER, lambda value, rule: value > rule, "is not above {}"),
    "maxLength": (str, lambda value, rule: len(value) <= rule, "has more than {} characters"),
    "pattern": (str, lambda value, rule: re.search(rule, value) is not None, "is not of the form {}"),
    "minItems": (list, lambda value, rule: len(value) >= rule, "has fewer than {} entries"),
    "maxItems": (list, lambda value, rule: len(value) <= rule, "has more than {} entries"),
    "minProperties": (dict, lambda value, rule: len(value) >= rule, "has fewer than {} entries"),
    "maxProperties": (dict, lambda value, rule: len(value) <= rule, "has more than {} entries"),
    "uniqueItems": (list, lambda value, rule: not rule or len(set(map(repr, value))) == len(value), "repeats an entry"),
}
_WITHIN = ("required", "properties", "additionalProperties", "propertyNames", "items")


def _within(keyword: str, rule: Any, value: Any, schema: Schema, root: Schema, path: str) -> str | None:
    """The keywords that look into an object or an array."""
    if keyword == "items":
        entries = enumerate(value) if isinstance(value, list) else ()
        return _first(violation(entry, rule, root, f"{path}[{index}]") for index, entry in entries)

    if not isinstance(value, dict):
        return None
    if keyword == "required":
        return next((f"{_join(path, name)} is missing" for name in rule if name not in value), None)
    if keyword == "propertyNames":
        return _first(violation(name, rule, root, f"the name {name[:80]!r}") for name in value)

    known = schema.get("properties", {})
    if keyword == "properties":
        return _first(violation(value[name], rule[name], root, _join(path, name)) for name in known if name in value)

    others = (name for name in value if name not in known)
    return _first(violation(value[name], rule, root, _join(path, name)) for name in others)


def _exact(keyword: str, rule: Any, value: Any, place: str) -> str | None:
    if keyword == "type":
        kinds = [rule] if isinstance(rule, str) else rule
        return None if any(_TYPES[kind](value) for kind in kinds) else f"{place} is no {' or '.join(kinds)}"
    allowed = rule if keyword == "enum" else [rule]
    return None if isinstance(value, str) and value in allowed else f"{place} is not {' or '.join(allowed)}"


def _first(found: Any) -> str | None:
    return next((each for each in found if each is not None), None)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return table


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0:
        raise ValueError(f"{digits[:20]} is not a finite number")
    return number

"""A grid: which rows a table has and what each of them is trained with, read from YAML and checked.

A grid file is a mapping with these keys; all but `title` and `rows` may be left out.

    title: one line
    base: another grid, of which this one replaces parts: rows and settings merge, null takes out a key or a row
    source: where the published figures stand
    recipe: a recipe's name or file
    seeds: how many from 2026 on, or a list
    settings: {key: value}            # of every run, as `--set` takes them
    methods: {cls: {epochs: 16}, re: {}, rekd: {}}   # of rows that name none, each with settings of its own
    rows:
      small:
        methods: [cls, re, rekd]      # or a mapping, whose settings win over those above; other names say which method
                                      # they are: {cls-kd: {method: cls, teacher: large, alpha: 0.5}}
        backbone, layers, generator_layers, settings
        seeds: how many of the grid's, or a list
        teacher: a row that teaches this row's rekd by its `re` run; a method that may do without (cls, plmr, rtp) has
            a teacher only where it names one itself, and cls learns from that row's `cls` run
        teacher_seed: the seed of that run, by default the first of its row; `same` for each student's own
        role: teacher or student      # by default what it is to the others
        vary: {target_ratio: [0.05, 0.15]}   # a line of the table for each value
        tune: {lambda_select: [0.005, 0.01]} # the same, and the lowest mean dev loss picks a value …
        tuned: the rows whose picks this row takes; a method may name others for itself
        published: {re: {accuracy: 0.889, std: 0.019, ratio: 0.149, dev_loss: 0.34}}   # a list where lines vary
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from math import prod
from pathlib import Path
from typing import Any, Literal

from rekd_edge.errors import InputError
from rekd_edge.methods import METHODS, method_of
from rekd_edge.settings import shown
from rekd_edge.sweep.fields import axes, known, mapping, text, texts, whole
from rekd_edge.sweep.rows import SAME_SEED, Grid, Row, Variant
from rekd_edge.training.configuration import read_yaml

__all__ = ["FIRST_SEED", "Grid", "Row", "load_grid", "shipped_grids"]

FIRST_SEED, MOST_SEEDS = 2026, 1000
MOST_LINES = 1000
"""How many combinations `vary` and `tune` of a row may give."""
_GRIDS = Path(__file__).parent / "grids"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+]*(?:-[A-Za-z0-9_.+]+)*")
_GRID_KEYS = ("title", "base", "source", "recipe", "seeds", "settings", "methods", "rows")
_SHORT = ("backbone", "layers", "generator_layers")
_TAUGHT = ("teacher", "teacher_seed", "tuned")
"""Keys of a row that a method may have of its own."""
_OF_A_METHOD = ("method", *_TAUGHT)
_ROW_KEYS = ("role", "methods", *_SHORT, "settings", "seeds", *_TAUGHT, "vary", "tune", "published")
_FIGURE_KEYS = ("accuracy", "std", "ratio", "dev_loss")
_OWN = ("method", "seed", "teacher")
"""Settings that a grid gives by keys of its own."""


def shipped_grids() -> list[str]:
    """Names of the grids that come with the package."""
    return sorted(path.stem for path in _GRIDS.glob("*.yaml"))


def load_grid(name: str, overrides: dict[str, str] | None = None, seeds: int | None = None) -> Grid:
    """Read and check a grid.

    Args:
        name: a YAML file, or the name of a shipped grid.
        overrides: `KEY` or `ROW.KEY` to a value, which wins over what the grid says.
        seeds: how many seeds instead of the grid's; beyond those that it names, the numbers that follow.

    Raises:
        InputError: there is no such grid, or something in it or in the overrides cannot be used.
    """
    fields = _read(name, ())
    known(fields, _GRID_KEYS, f"the grid {name}")

    given = mapping(fields.get("rows"), "rows")
    if not given:
        raise InputError(f"The grid {name} has no rows; add some under `rows`.")

    for_all, for_row = _split(overrides or {}, given)
    count = _seeds(fields.get("seeds", 1), seeds)
    shared = _methods(fields.get("methods"), f"the grid {name}")
    settings = _settings(fields.get("settings"), f"the grid {name}")
    named = {
        teacher for key, row in given.items() for teacher in _teachers_in([row, *shared.values()]) if teacher != key
    }

    rows = {}

    for key, row in given.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key) or key in METHODS or key == "data":
            raise InputError(f"{shown(key)} cannot name a row; take letters, digits, -, _ and ., and no method's name.")

        fields_of_row = mapping(row, f"row {shown(key)}")
        won = {**for_all, **for_row.get(key, {})}

        if "backbone" in for_all and "backbone" not in for_row.get(key, {}):
            won["backbone"] = _around(fields_of_row.get("backbone"), for_all["backbone"])

        rows[key] = _row(key, fields_of_row, shared, settings, won, count, key in named)

    for row in rows.values():
        _check_picks(row, rows, {**for_all, **for_row.get(row.name, {})})

    grid = Grid(
        name=Path(name).stem,
        title=text(fields.get("title", Path(name).stem), "title"),
        rows=rows,
        source=text(fields.get("source", ""), "source"),
        recipe=_recipe(text(fields["recipe"], "recipe")) if fields.get("recipe") else None,
    )
    _check_names(grid)
    return grid


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """A grid's fields, merged into those of its base."""
    path = Path(name)
    if not path.is_file():
        path = _GRIDS / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"There is no grid {name}; give a YAML file or one of {', '.join(shipped_grids())}.")
    if name in seen:
        raise InputError(f"The grid {name} is its own base; take `base` out of one of {', '.join(seen)}.")

    fields = mapping(read_yaml(path, name), f"the grid {name}")
    base = fields.pop("base", None)
    if base is None:
        return fields

    beside = path.parent / f"{text(base, 'base')}.yaml"
    return _merged(_read(str(beside) if beside.is_file() else base, (*seen, name)), fields)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` updated with `over`: settings and rows are merged, other keys are replaced, null removes a key."""
    merged = {key: value for key, value in {**base, **over}.items() if over.get(key, value) is not None}
    if "settings" in base and "settings" in merged:
        merged["settings"] = {**mapping(base["settings"], "settings"), **mapping(merged["settings"], "settings")}

    if "rows" in base and "rows" in merged:
        rows = dict(mapping(base["rows"], "rows"))
        for name, row in mapping(merged["rows"], "rows").items():
            rows[name] = _merged(mapping(rows.get(name), name), mapping(row, name)) if row is not None else None
        merged["rows"] = {name: row for name, row in rows.items() if row is not None}

    return merged


def _teachers_in(parts: Collection[Any]) -> Iterator[str]:
    """The rows that these rows, or methods of theirs, name as teachers."""
    for part in parts:
        if not isinstance(part, dict):
            continue
        if isinstance(part.get("teacher"), str):
            yield part["teacher"]
        if isinstance(methods := part.get("methods"), dict):
            yield from _teachers_in(methods.values())


def _row(
    name: str,
    fields: dict[str, Any],
    shared: dict[str, dict[str, Any]],
    settings: dict[str, Any],
    won: dict[str, str],
    seeds: tuple[int, ...],
    teaches: bool,
) -> Row:
    where = f"row {shown(name)}"
    known(fields, _ROW_KEYS, where)

    own = _methods(fields.get("methods"), where, shared) or {method: {} for method in shared}
    if not own:
        raise InputError(f"{where} has no methods; give some to it or to the grid.")

    short = {key: fields[key] for key in _SHORT if key in fields}
    local = _settings(fields.get("settings"), where) | short

    role = fields.get("role", "teacher" if teaches else "student")
    if role not in ("teacher", "student"):
        raise InputError(f"role of {where} must be teacher or student, not {shown(role)}.")

    of_row = {key: fields[key] for key in _TAUGHT if key in fields}
    variants = {
        each: _variant(each, {**settings, **shared.get(each, {}), **local, **more}, won, of_row, f"{each} of {where}")
        for each, more in own.items()
    }
    row = Row(
        name=name,
        role=role,
        variants=variants,
        seeds=_row_seeds(fields["seeds"], seeds, where) if "seeds" in fields else seeds,
        vary=axes(fields.get("vary"), f"vary of {where}"),
        tune=axes(fields.get("tune"), f"tune of {where}"),
    )
    _check_axes(row, won, where)

    return _with_published(row, fields.get("published"), where)


def _variant(name: str, given: dict[str, Any], won: dict[str, str], of_row: dict[str, Any], where: str) -> Variant:
    """A method of a row; the row's teacher is that of a method which must have one."""
    method = method_of(text(given.get("method", name), f"method of {where}"))
    if not method.public:
        raise InputError(f"{where} cannot train {given.get('method', name)}; a sweep trains controls by itself.")

    taught = {**({} if method.teacher != "must" else of_row), **{key: given[key] for key in _TAUGHT if key in given}}
    seed: int | Literal["same"] | None = taught.get("teacher_seed")
    if seed is not None and seed != SAME_SEED:
        seed = whole(seed, f"teacher_seed of {where}", 0)

    teacher = taught.get("teacher")
    if teacher is not None and method.teacher == "never":
        raise InputError(f"{where} learns from no teacher; leave `teacher` out, or take another method.")

    return Variant(
        name=name,
        method=given.get("method", name),
        settings={key: value for key, value in given.items() if key not in ("method", *_TAUGHT)} | won,
        teacher=None if teacher is None else text(teacher, f"teacher of {where}"),
        teacher_seed=seed,
        tuned=texts({**of_row, **taught}.get("tuned"), f"tuned of {where}"),
    )


def _check_axes(row: Row, won: dict[str, str], where: str) -> None:
    """Refuse to vary or tune a setting that is fixed elsewhere, or that no method of the row reads."""
    for key in (*row.vary, *row.tune):
        if key in won or key in _OWN:
            raise InputError(f"{where} varies {key} itself; leave it out of --set, or take other settings.")
        if all(key in variant.unused for variant in row.variants.values()):
            names = ", ".join(row.variants)
            raise InputError(f"{where} varies {key}, of which {names} knows nothing; leave it out.")

    if (lines := prod(len(values) for values in (*row.vary.values(), *row.tune.values()))) > MOST_LINES:
        raise InputError(f"{where} varies and tunes {lines} combinations; take {MOST_LINES} at most.")
    if row.tune and len(row.variants) != 1:
        raise InputError(f"{where} tunes, and needs one method; split it into a row for each method.")


def _recipe(name: str) -> str:
    """A file as its absolute path: workers may have another working directory."""
    return str(Path(name).resolve()) if Path(name).is_file() else name


def _check_picks(row: Row, rows: dict[str, Row], won: dict[str, str]) -> None:
    for name in dict.fromkeys(name for variant in row.variants.values() for name in variant.tuned):
        for key in rows[name].tune if name in rows else ():
            if key in won:
                raise InputError(f"Row {row.name!r} takes {key} from {shown(name)}; leave it out of --set.")


def _with_published(row: Row, given: Any, where: str) -> Row:
    published: dict[str, list[dict[str, float]]] = {}
    for method, figures in mapping(given, f"published of {where}").items():
        if method not in row.variants:
            continue  # of a base whose methods this row does not take

        figures = figures if isinstance(figures, list) else [figures]
        if len(figures) != len(row.lines(method)):
            raise InputError(
                f"published of {where} has {len(figures)} figures for {method}, which has {len(row.lines(method))} "
                "lines; give one for each."
            )

        for figure in figures:
            known(mapping(figure, f"published of {where}"), _FIGURE_KEYS, f"published of {where}")
            if not all(isinstance(value, int | float) for value in figure.values()):
                raise InputError(f"published of {where} must hold numbers, not {figure}.")

        published[method] = figures

    return Row(**{**row.__dict__, "published": published})


def _check_names(grid: Grid) -> None:
    """Teachers and tuning rows must be rows, and none may wait for itself."""
    for row in grid.rows.values():
        for variant in row.variants.values():
            _check_references(grid, row, variant)

    def visit(row: Row, variant: Variant, above: tuple[tuple[str, str], ...]) -> None:
        if (row.name, variant.name) in above:
            names = " → ".join(name for name, _ in (*above, (row.name, variant.name)))
            raise InputError(f"Rows wait for each other: {names}; break the circle.")

        needed = [(grid.rows[name], each) for name in variant.tuned for each in grid.rows[name].variants.values()]
        if variant.teacher is not None:
            source = grid.rows[variant.teacher]
            needed.append((source, source.teaching(variant.method)))

        for other, each in needed:
            visit(other, each, (*above, (row.name, variant.name)))

    for row in grid.rows.values():
        for variant in row.variants.values():
            visit(row, variant, ())


def _check_references(grid: Grid, row: Row, variant: Variant) -> None:
    for key, names in (("teacher", [variant.teacher] if variant.teacher else []), ("tuned", variant.tuned)):
        for name in names:
            if name not in grid.rows:
                rows = ", ".join(grid.rows)
                raise InputError(f"{key} of row {row.name!r} names {shown(name)}, which is no row; they are {rows}.")

    if any(not grid.rows[name].tune for name in variant.tuned):
        raise InputError(f"tuned of row {row.name!r} must name rows that have `tune`.")
    if variant.teacher and grid.rows[variant.teacher].tune:
        raise InputError(f"Row {variant.teacher!r} tunes and cannot teach; add a row with tuned: {variant.teacher}.")
    if METHODS[variant.method].teacher == "must" and not variant.teacher:
        raise InputError(f"Row {row.name!r} trains {variant.name}, which needs a teacher; name one with `teacher`.")


def _split(overrides: dict[str, str], rows: Collection[str]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Overrides of all rows, and those of a single row (`ROW.KEY`)."""
    for_all: dict[str, str] = {}
    for_row: dict[str, dict[str, str]] = {}

    for key, value in overrides.items():
        row = next((name for name in _prefixes(key) if name in rows), None)
        setting = key if row is None else key[len(row) + 1 :]
        if setting in _OWN:
            raise InputError(f"--set {key} belongs to the grid; take --seeds, or a grid of your own.")
        (for_all if row is None else for_row.setdefault(row, {}))[setting] = value

    return for_all, for_row


def _around(own: Any, given: str) -> str:
    """The backbone given for all rows, inside the row's own net if that is `bilstm:NAME` or the like."""
    net, *inner = str(own).split(":")
    within, *donor = given.split(":")
    is_net = inner and net != "random"
    given_is_net = donor and within != "random"
    return f"{net}:{given}" if is_net and not given_is_net else given


def _prefixes(key: str) -> Iterator[str]:
    return (key[: match.start()] for match in re.finditer(r"\.", key))


def _seeds(given: Any, count: int | None) -> tuple[int, ...]:
    if isinstance(given, list) and given:
        seeds = list(dict.fromkeys(whole(seed, "a seed", 0) for seed in given))
    else:
        seeds = list(range(FIRST_SEED, FIRST_SEED + whole(given, "seeds", 1, MOST_SEEDS)))

    if count is not None:
        whole(count, "--seeds", 1, MOST_SEEDS)
        seeds += range(max(seeds) + 1, max(seeds) + 1 + count)
        seeds = seeds[:count]

    return tuple(seeds)


def _row_seeds(given: Any, seeds: tuple[int, ...], where: str) -> tuple[int, ...]:
    """A row's own list, or the first ones of the grid's."""
    if isinstance(given, list):
        return _seeds(given, None)
    return seeds[: whole(given, f"seeds of {where}")]


def _methods(given: Any, where: str, known_names: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """The own settings of each method by its name, with `method` and its teacher; known names need not say `method`."""
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list):
        given = dict.fromkeys(text(name, f"a method of {where}") for name in given)

    methods = {}
    for name, fields in mapping(given, f"methods of {where}").items():
        own = {key: value for key, value in mapping(fields, f"{name} of {where}").items() if key in _OF_A_METHOD}
        settings = {key: value for key, value in (fields or {}).items() if key not in own}

        if name not in METHODS and not _NAME.fullmatch(name):
            raise InputError(f"{shown(name)} cannot name a method of {where}; take letters, digits, -, _ and '.'.")
        if "method" not in own and name not in known_names and not method_of(name).public:
            raise InputError(f"{where} cannot train {name}; a sweep trains controls by itself.")

        methods[name] = _settings(settings, f"{name} of {where}") | own

    return methods


def _settings(given: Any, where: str) -> dict[str, Any]:
    settings = mapping(given, f"settings of {where}")
    if taken := sorted(settings.keys() & set(_OWN)):
        raise InputError(f"settings of {where} cannot hold {taken[0]}; use `methods`, `seeds` and `teacher`.")
    return settings

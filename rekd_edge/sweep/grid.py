"""A grid: which rows a table has and what each of them is trained with, read from YAML and checked.

A grid file is a mapping with these keys; all but `title` and `rows` may be left out.

    title: one line
    base: another grid, of which this one replaces parts: rows and settings merge, null takes out a key or a row
    source: where the published figures stand
    recipe: a recipe's name or file
    seeds: how many from 2026 on, or a list
    settings: {key: value}            # of every run, as `--set` takes them
    methods: {cls: {epochs: 16}, re, rekd}   # of rows that name none, each with settings of its own
    rows:
      small:
        methods: [cls, re, rekd]      # or a mapping to settings, as above
        backbone, layers, generator_layers, settings
        seeds: how many of the grid's, or a list
        teacher: a row, whose `re` run of `teacher_seed` (by default the first seed) teaches this row's students
        role: teacher or student      # by default what it is to the others
        vary: {target_ratio: [0.05, 0.15]}   # a line of the table for each value
        tune: {lambda_select: [0.005, 0.01]} # the same, and the lowest mean dev loss picks a value …
        tuned: the rows whose picks this row takes
        published: {re: {accuracy: 0.889, std: 0.019, ratio: 0.149, dev_loss: 0.34}}   # a list where lines vary
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from rekd_edge.errors import InputError
from rekd_edge.methods import METHODS, method_of

__all__ = ["FIRST_SEED", "UNUSED_BY_CONTROLS", "Grid", "Row", "load_grid", "shipped_grids", "unused_by"]

FIRST_SEED = 2026
_OF_SELECTION = frozenset(
    (
        *("target_ratio", "class_ratios", "mask_mode", "generator_layers", "share_embeddings", "calibrate"),
        *("lambda_select", "normalise_selection", "selection_loss", "lambda_contiguity"),
        *("initial_ratio", "ratio_descent", "select_words", "min_selected", "max_selected"),
        *("temperature_start", "temperature_end", "temperature_refresh"),
        *("predictor_epochs", "warm_start", "control", "control_epochs"),
    )
)
_OF_TEACHERS = frozenset(
    (
        *("alpha", "alpha_end", "distil", "kd_temperature", "lambda_r"),
        *("teacher_labels", "teacher_mask", "teacher_margins", "allow_weak_teacher", "gumbel_noise"),
    )
)
_OF_A_CONTROL = frozenset(("target_ratio", "class_ratios", "mask_mode", "control_epochs"))
UNUSED_BY_CONTROLS = (_OF_SELECTION - _OF_A_CONTROL) | _OF_TEACHERS | {"early_stopping"}
"""Settings that leave a control as it is: runs that differ in these alone share one."""

Values = tuple[tuple[str, Any], ...]
"""Settings and the values that `vary` or `tune` gave them, in the grid's order."""

_GRIDS = Path(__file__).parent / "grids"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+]*(?:-[A-Za-z0-9_.+]+)*")
_GRID_KEYS = ("title", "base", "source", "recipe", "seeds", "settings", "methods", "rows")
_SHORT = ("backbone", "layers", "generator_layers")
_ROW_KEYS = (
    *("role", "methods", *_SHORT, "settings", "seeds", "teacher", "teacher_seed"),
    *("vary", "tune", "tuned", "published"),
)
_FIGURE_KEYS = ("accuracy", "std", "ratio", "dev_loss")
_OWN = ("method", "seed", "teacher")
"""Settings that a grid gives by keys of its own."""


def unused_by(method: str) -> frozenset[str]:
    """Settings that a method knows nothing of: its line is not varied by these."""
    if not METHODS[method].selects:
        return _OF_SELECTION | _OF_TEACHERS
    return _OF_TEACHERS if METHODS[method].teacher == "never" else frozenset()


@dataclass(frozen=True)
class Row:
    """A model of the table: a line for each of its methods, and for each value that it varies or tunes."""

    name: str
    role: str
    methods: dict[str, dict[str, Any]]
    """Method to the settings of its lines, all levels merged."""
    seeds: tuple[int, ...]
    teacher: str | None = None
    teacher_seed: int | None = None
    vary: dict[str, list[Any]] = field(default_factory=dict)
    tune: dict[str, list[Any]] = field(default_factory=dict)
    tuned: tuple[str, ...] = ()
    published: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Method to the published figure of each of its lines."""

    def lines(self, method: str) -> list[Values]:
        """The values of each line that a method has."""
        unused = unused_by(method)
        axes = {key: values for key, values in {**self.vary, **self.tune}.items() if key not in unused}
        return [tuple(zip(axes, values, strict=True)) for values in product(*axes.values())]

    @property
    def teaching_method(self) -> str:
        """The method whose run teaches others: `re`, or the only one that selects.

        Raises:
            InputError: there is none.
        """
        selecting = [name for name in self.methods if METHODS[name].selects]
        if "re" not in selecting and len(selecting) != 1:
            raise InputError(f"Row {self.name!r} is named as a teacher, and has no re run; add re to its methods.")
        return "re" if "re" in selecting else selecting[0]


@dataclass(frozen=True)
class Grid:
    """Rows with the seeds and settings that they share."""

    name: str
    title: str
    rows: dict[str, Row]
    source: str = ""
    recipe: str | None = None


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
    _known(fields, _GRID_KEYS, f"the grid {name}")
    given = _mapping(fields.get("rows"), "rows")
    if not given:
        raise InputError(f"The grid {name} has no rows; add some under `rows`.")
    for_all, for_row = _split(overrides or {}, given)
    count = _seeds(fields.get("seeds", 1), seeds)
    shared = _methods(fields.get("methods"), f"the grid {name}")
    settings = _settings(fields.get("settings"), f"the grid {name}")
    named = [row["teacher"] for row in given.values() if isinstance(row, dict) and "teacher" in row]
    rows = {}
    for key, row in given.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key) or key in METHODS or key == "data":
            raise InputError(f"{key!r} cannot name a row; take letters, digits, -, _ and ., and no method's name.")
        fields_of_row = _mapping(row, f"row {key!r}")
        won = {**for_all, **for_row.get(key, {})}
        if "backbone" in for_all and "backbone" not in for_row.get(key, {}):
            won["backbone"] = _around(fields_of_row.get("backbone"), for_all["backbone"])
        rows[key] = _row(key, fields_of_row, shared, settings, won, count, key in named)
    for row in rows.values():
        _check_picks(row, rows, {**for_all, **for_row.get(row.name, {})})
    grid = Grid(
        name=Path(name).stem,
        title=_text(fields.get("title", Path(name).stem), "title"),
        rows=rows,
        source=_text(fields.get("source", ""), "source"),
        recipe=_recipe(_text(fields["recipe"], "recipe")) if fields.get("recipe") else None,
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
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{name} is not valid YAML: {' '.join(str(error).split())}.") from error
    fields = _mapping(fields, f"the grid {name}")
    base = fields.pop("base", None)
    if base is None:
        return fields
    beside = path.parent / f"{_text(base, 'base')}.yaml"
    return _merged(_read(str(beside) if beside.is_file() else base, (*seen, name)), fields)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A grid or row with what `over` says: settings and rows are merged, all else is replaced, null takes a key out."""
    merged = {key: value for key, value in {**base, **over}.items() if over.get(key, value) is not None}
    if "settings" in base and "settings" in merged:
        merged["settings"] = {**_mapping(base["settings"], "settings"), **_mapping(merged["settings"], "settings")}
    if "rows" in base and "rows" in merged:
        rows = dict(_mapping(base["rows"], "rows"))
        for name, row in _mapping(merged["rows"], "rows").items():
            rows[name] = _merged(_mapping(rows.get(name), name), _mapping(row, name)) if row is not None else None
        merged["rows"] = {name: row for name, row in rows.items() if row is not None}
    return merged


def _row(
    name: str,
    fields: dict[str, Any],
    shared: dict[str, dict[str, Any]],
    settings: dict[str, Any],
    won: dict[str, str],
    seeds: tuple[int, ...],
    teaches: bool,
) -> Row:
    where = f"row {name!r}"
    _known(fields, _ROW_KEYS, where)
    own = _methods(fields.get("methods"), where) or {method: {} for method in shared}
    if not own:
        raise InputError(f"{where} has no methods; give some to it or to the grid.")
    short = {key: fields[key] for key in _SHORT if key in fields}
    local = _settings(fields.get("settings"), where) | short
    role = fields.get("role", "teacher" if teaches else "student")
    if role not in ("teacher", "student"):
        raise InputError(f"role of {where} must be teacher or student, not {role!r}.")
    tuned = fields.get("tuned", [])
    tuned = [tuned] if isinstance(tuned, str) else tuned
    if not isinstance(tuned, list) or not all(isinstance(each, str) for each in tuned):
        raise InputError(f"tuned of {where} must name rows, not {tuned!r}.")
    row = Row(
        name=name,
        role=role,
        methods={each: {**settings, **shared.get(each, {}), **local, **more, **won} for each, more in own.items()},
        seeds=_row_seeds(fields["seeds"], seeds, where) if "seeds" in fields else seeds,
        teacher=_text(fields["teacher"], f"teacher of {where}") if "teacher" in fields else None,
        teacher_seed=_whole(fields["teacher_seed"], f"teacher_seed of {where}", 0)
        if "teacher_seed" in fields
        else None,
        vary=_axes(fields.get("vary"), f"vary of {where}"),
        tune=_axes(fields.get("tune"), f"tune of {where}"),
        tuned=tuple(tuned),
    )
    for key in (*row.vary, *row.tune):
        if key in won or key in _OWN:
            raise InputError(f"{where} varies {key} itself; leave it out of --set, or take other settings.")
        if all(key in unused_by(method) for method in own):
            raise InputError(f"{where} varies {key}, of which {', '.join(own)} knows nothing; leave it out.")
    if row.tune and (len(own) != 1 or not METHODS[next(iter(own))].selects):
        raise InputError(f"{where} tunes, and needs one method that selects; split it into a row for each method.")
    return _with_published(row, fields.get("published"), where)


def _recipe(name: str) -> str:
    """A file by its absolute path: workers may stand elsewhere."""
    return str(Path(name).resolve()) if Path(name).is_file() else name


def _check_picks(row: Row, rows: dict[str, Row], won: dict[str, str]) -> None:
    for name in row.tuned:
        for key in rows[name].tune if name in rows else ():
            if key in won:
                raise InputError(f"Row {row.name!r} takes {key} from {name!r}; leave it out of --set.")


def _with_published(row: Row, given: Any, where: str) -> Row:
    published: dict[str, list[dict[str, float]]] = {}
    for method, figures in _mapping(given, f"published of {where}").items():
        if method not in row.methods:
            continue  # of a base whose methods this row does not take
        figures = figures if isinstance(figures, list) else [figures]
        if len(figures) != len(row.lines(method)):
            raise InputError(
                f"published of {where} has {len(figures)} figures for {method}, which has {len(row.lines(method))} "
                "lines; give one for each."
            )
        for figure in figures:
            _known(_mapping(figure, f"published of {where}"), _FIGURE_KEYS, f"published of {where}")
            if not all(isinstance(value, int | float) for value in figure.values()):
                raise InputError(f"published of {where} must hold numbers, not {figure}.")
        published[method] = figures
    return Row(**{**row.__dict__, "published": published})


def _check_names(grid: Grid) -> None:
    """Teachers and tuning rows must be rows, and none may wait for itself."""
    for row in grid.rows.values():
        for key, names in (("teacher", [row.teacher] if row.teacher else []), ("tuned", row.tuned)):
            for name in names:
                if name not in grid.rows:
                    rows = ", ".join(grid.rows)
                    raise InputError(f"{key} of row {row.name!r} names {name!r}, which is no row; the rows are {rows}.")
        if any(not grid.rows[name].tune for name in row.tuned):
            raise InputError(f"tuned of row {row.name!r} must name rows that have `tune`.")
        if row.teacher and grid.rows[row.teacher].tune:
            raise InputError(f"Row {row.teacher!r} tunes and cannot teach; add a row with tuned: {row.teacher}.")
        taught = [name for name in row.methods if METHODS[name].teacher == "must"]
        if taught and not row.teacher:
            raise InputError(f"Row {row.name!r} trains {taught[0]}, which needs a teacher; name one with `teacher`.")

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise InputError(f"Rows wait for each other: {' → '.join((*above, name))}; break the circle.")
        row = grid.rows[name]
        for needed in (*row.tuned, *([row.teacher] if row.teacher else [])):
            visit(needed, (*above, name))

    for name in grid.rows:
        visit(name, ())


def _split(overrides: dict[str, str], rows: Collection[str]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Overrides of all rows, and those of one (`ROW.KEY`)."""
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
    """The backbone given for all rows; where a row's own is `bilstm:NAME` or the like, within the same net."""
    net, *inner = str(own).split(":")
    within, *donor = given.split(":")
    is_net = inner and net != "random"
    given_is_net = donor and within != "random"
    return f"{net}:{given}" if is_net and not given_is_net else given


def _prefixes(key: str) -> Iterator[str]:
    return (key[: match.start()] for match in re.finditer(r"\.", key))


def _seeds(given: Any, count: int | None) -> tuple[int, ...]:
    if isinstance(given, list) and given and all(type(seed) is int for seed in given):
        seeds = list(dict.fromkeys(given))
    elif isinstance(given, int) and not isinstance(given, bool) and given >= 1:
        seeds = list(range(FIRST_SEED, FIRST_SEED + given))
    else:
        raise InputError(f"seeds must be how many, or a list of whole numbers, not {given!r}.")
    if count is not None:
        if count < 1:
            raise InputError(f"--seeds must be at least 1, not {count}.")
        seeds += range(max(seeds) + 1, max(seeds) + 1 + count)
        seeds = seeds[:count]
    return tuple(seeds)


def _row_seeds(given: Any, seeds: tuple[int, ...], where: str) -> tuple[int, ...]:
    """A row's own list, or the first so many of the grid's."""
    if isinstance(given, list):
        return _seeds(given, None)
    return seeds[: _whole(given, f"seeds of {where}")]


def _methods(given: Any, where: str) -> dict[str, dict[str, Any]]:
    """Method to the settings that it has of its own."""
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list):
        given = dict.fromkeys(_text(name, f"a method of {where}") for name in given)
    methods = {}
    for name, settings in _mapping(given, f"methods of {where}").items():
        if not method_of(str(name)).public:
            raise InputError(f"{where} cannot train {name}; a sweep trains controls by itself.")
        methods[str(name)] = _settings(settings, f"{name} of {where}")
    return methods


def _settings(given: Any, where: str) -> dict[str, Any]:
    settings = _mapping(given, f"settings of {where}")
    if taken := sorted(settings.keys() & set(_OWN)):
        raise InputError(f"settings of {where} cannot hold {taken[0]}; use `methods`, `seeds` and `teacher`.")
    return settings


def _axes(given: Any, where: str) -> dict[str, list[Any]]:
    axes = _mapping(given, where)
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where} takes a list of values for {key}, not {values!r}.")
    return axes


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a mapping of keys to values, not {value!r}.")
    if (key := next((key for key in value if not isinstance(key, str)), None)) is not None:
        raise InputError(f"The key {key!r} in {where} must be a text; write it in quotes.")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where} must be a text, not {value!r}.")
    return value


def _whole(value: Any, where: str, lowest: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise InputError(f"{where} must be a whole number of at least {lowest}, not {value!r}.")
    return value


def _known(fields: dict[str, Any], known: Collection[str], where: str) -> None:
    for key in fields:
        if key not in known:
            raise InputError(f"Unknown key {key!r} in {where}; known are {', '.join(known)}.")

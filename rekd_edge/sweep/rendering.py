"""The tables of a sweep as text: for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from rekd_edge.sweep.intervals import Interval, is_shown
from rekd_edge.sweep.table import CONTROL, Line

__all__ = ["Section", "as_markdown", "as_rich", "sections"]

_SPARE = ("F1", "rationale alone", "control", "n", "dev")
"""Columns that a narrow terminal leaves out, in this order."""
_UNBOUNDED = Console(width=1000)
_LEFT = ("row", "method")


@dataclass(frozen=True)
class Section:
    """A table with its title and legend."""

    title: str
    columns: dict[str, list[str]]
    """Column title to cells."""
    legend: str


def sections(document: dict[str, Any]) -> list[Section]:
    """The tables of a sweep's document, without empty ones."""
    lines = document["table"]
    parts = [_figures(lines), _differences(lines), _tuned(lines)]
    parts.append(_published(document["published"], document["source"]))
    return [part for part in parts if any(title not in _LEFT for title in part.columns)]


def as_markdown(document: dict[str, Any]) -> str:
    """All tables of a sweep and its failed runs."""
    text = [f"# {document['title']}", ""]
    for section in sections(document):
        text += [f"## {section.title}", "", *_markdown_rows(section.columns), "", section.legend, ""]
    if document["failed"]:
        text += ["## Failed", "", *(f"- `{each['run']}`: {each['error']}" for each in document["failed"])]
    return "\n".join(text).rstrip() + "\n"


def as_rich(section: Section, width: int | None = None) -> Table:
    """For the terminal. Columns that do not fit `width` characters are left out; `table.md` has them."""
    columns = dict(section.columns)
    if "ratio" in columns:
        columns["ratio"] = [cell.partition(" ")[0] for cell in columns["ratio"]]

    spare = [title for title in _SPARE if title in columns]
    while (table := _rich(columns)) and width and spare and _UNBOUNDED.measure(table).maximum > width:
        del columns[spare.pop(0)]

    return table


def _figures(lines: Sequence[Line]) -> Section:
    """Means over the seeds."""
    tunes = any("picked" in line for line in lines)
    columns = {
        **_names(lines),
        "n": [str(line["n"]) if line["n"] == line["of"] else f"{line['n']}/{line['of']}" for line in lines],
        "dev": [_cell(line.get("dev_accuracy")) for line in lines],
        "test": [_cell(line.get("accuracy")) for line in lines],
        "ratio": [_cell(line.get("rationale_ratio"), percent=True) for line in lines],
        "rationale alone": [_cell(line.get("rationale_accuracy")) for line in lines],
        "control": [_cell(line.get("random_mask_accuracy")) for line in lines],
        "F1": [_cell(line.get("rationale_f1"), spread=False) for line in lines],
    }

    if tunes:
        columns["dev loss"] = [
            _cell(line.get("dev_loss"), digits=4) + (" ←" if line.get("picked") else "") for line in lines
        ]

    legend = (
        "Accuracy on dev and test, mean (standard deviation) over n seeds; test is read once, at the end of a run, and "
        "not for rows that tune. ratio: share of the features selected; control: test accuracy of the same predictor "
        "on random masks of that ratio, trained for as many steps."
    )
    return Section("Accuracy", _filled(columns), legend)


def _differences(lines: Sequence[Line]) -> Section:
    """Differences of each line to the control and to other lines."""
    compared = [line for line in lines if "differences" in line]
    references = dict.fromkeys(name for line in compared for name in line["differences"])
    classifiers = dict.fromkeys(name for line in compared for name in line.get("won_back", {}))
    columns = {
        **_names(compared),
        **{f"− {_title(name)}": [_interval(line["differences"].get(name)) for line in compared] for name in references},
        **{
            f"won back of {_title(name)}": [_interval(line.get("won_back", {}).get(name), True) for line in compared]
            for name in classifiers
        },
    }
    legend = (
        "Differences of test accuracy, paired by seed: mean [95 % interval of the paired t test]. Where the interval "
        "holds 0 the difference is not shown; one seed has no interval. won back: (REKD − RE) / (CLS − RE), with the "
        "interval that inverts the paired t test; it has no bounds where RE may lose nothing to that CLS."
    )

    return Section("Differences", _filled(columns), legend)


def _tuned(lines: Sequence[Line]) -> Section:
    """The settings that were tried on dev data."""
    chosen = [(line, key, value) for line in lines for key, value in line.get("tuned", {}).items()]
    columns = {
        **_names([line for line, _, _ in chosen]),
        "setting": [key for _, key, _ in chosen],
        "tried": [", ".join(map(_plain, value["tried"])) for _, _, value in chosen],
        "taken": [_plain(value["taken"]) for _, _, value in chosen],
    }
    return Section("Tuned on dev", _filled(columns), "Every value that was tried, and the one of the best dev figure.")


def _published(figures: Sequence[dict[str, Any]], source: str) -> Section:
    """The paper's own figures."""
    columns = {
        **_names(figures),
        "accuracy": [_pair(figure.get("accuracy"), figure.get("std")) for figure in figures],
        "ratio": [_percent(figure.get("ratio")) for figure in figures],
        "dev loss": [_number(figure.get("dev_loss"), 4) for figure in figures],
        "− RE": [_signed(figure.get("gain")) for figure in figures],
        "won back": [_percent(figure.get("won_back"), 0) for figure in figures],
    }
    legend = f"From {source}: its own models, data and schedule." if source else "Its own models, data and schedule."
    return Section("Published", _filled(columns), legend)


def _names(lines: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    keys = list(dict.fromkeys(key for line in lines for key in line["values"]))
    return {
        "row": [line["row"] for line in lines],
        "method": [_title(line["line"]) for line in lines],
        **{key: [_plain(line["values"].get(key)) for line in lines] for key in keys},
    }


def _title(name: str) -> str:
    """The name of a line as tables show it."""
    return name if name == CONTROL else name.upper()


def _filled(columns: dict[str, list[str]]) -> dict[str, list[str]]:
    return {title: cells for title, cells in columns.items() if any(cells)}


def _interval(interval: Interval | None, percent: bool = False) -> str:
    """`+0.020 [+0.010, +0.030]`, marked if it does not exclude 0."""
    if interval is None:
        return ""

    def spelled(value: float) -> str:
        return _percent(value, 0) if percent else _signed(value)

    mean = spelled(interval["mean"])

    if interval["n"] < 2:
        return f"{mean} (one seed)"

    bounds = "no bounds" if interval["low"] is None else f"{spelled(interval['low'])}, {spelled(interval['high'])}"
    return f"{mean} [{bounds}]" + ("" if is_shown(interval) else " not shown")


def _cell(figure: dict[str, float | None] | None, percent: bool = False, spread: bool = True, digits: int = 3) -> str:
    """`mean (std)`."""
    if figure is None:
        return ""
    return _pair(figure["mean"], figure["std"] if spread else None, percent, digits)


def _pair(mean: float | None, std: float | None, percent: bool = False, digits: int = 3) -> str:
    if mean is None:
        return ""
    spelled = _percent if percent else lambda value: _number(value, digits)
    return spelled(mean) if std is None else f"{spelled(mean)} ({spelled(std)})"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}%}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _markdown_rows(columns: dict[str, list[str]]) -> list[str]:
    left = [":--" if name in _LEFT else "--:" for name in columns]
    rows = zip(*columns.values(), strict=True)
    return ["| " + " | ".join(cells) + " |" for cells in (list(columns), left, *rows)]


def _rich(columns: dict[str, list[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for title in columns:
        table.add_column(title, justify="left" if title in _LEFT else "right", no_wrap=True)

    rows = columns["row"]
    for index, cells in enumerate(zip(*columns.values(), strict=True)):
        table.add_row(*cells, end_section=index + 1 == len(rows) or rows[index + 1] != rows[index])

    return table

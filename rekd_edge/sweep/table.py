"""A sweep's runs as one table: mean and standard deviation over the seeds, gains, and the published figures beside."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from rekd_edge.sweep.grid import Grid, Row, Values
from rekd_edge.sweep.perform import rank_of_pick
from rekd_edge.sweep.plan import Run

__all__ = ["as_markdown", "as_rich", "legend", "summarised", "won_back"]

_FIGURES = ("accuracy", "rationale_ratio", "random_mask_accuracy", "dev_loss", "dev_rationale_ratio", "rationale_f1")
_SPARE = ("publ. ratio", "F1", "publ. won back", "control", "publ. gain", "n")
"""Columns that a narrow terminal does without, the first ones first."""
_UNBOUNDED = Console(width=1000)


def summarised(grid: Grid, plan: dict[str, Run], results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each line of the grid, in its order, whatever the order of the runs.

    Args:
        grid: the grid.
        plan: all its runs.
        results: run name to row, of those that are finished.

    Returns:
        `row`, `method`, `role`, `values`, `n` finished `of` all; each figure that a finished run has as
        `{"mean", "std"}` (sample standard deviation, None of one run); for `rekd` its `gain` over the `re` runs of the
        same row, values and seeds and the share of what RE loses to CLS that it has `won_back`; `picked` for the line
        that a tuning row decides for; `published` with what follows from it.
    """
    lines = []
    for row in grid.rows.values():
        entries = []
        for method in row.methods:
            for index, values in enumerate(row.lines(method)):
                found = _of_line(plan, results, row, method, values)
                entry = {
                    "row": row.name,
                    "method": method,
                    "role": row.role,
                    "values": dict(values),
                    "n": len(found),
                    "of": sum(_is_of(run, row, method, values) for run in plan.values()),
                    **{name: figure for name in _FIGURES if (figure := _figure(found, name)) is not None},
                }
                if method == "cls":
                    entry.pop("rationale_f1", None)  # of a whole input it says nothing
                if method == "rekd":
                    entry |= _gains(plan, results, row, values, found)
                published = dict(row.published[method][index]) if method in row.published else {}
                if method == "rekd" and published:
                    published |= _published_gains(row, values)
                entries.append(entry | ({"published": published} if published else {}))
        if row.tune:
            _mark_picked(entries, results, plan)
        lines += entries
    return lines


def won_back(cls: float, re: float, rekd: float) -> float | None:
    """The share of the accuracy that RE loses to CLS which REKD wins back; None where RE loses nothing."""
    return (rekd - re) / (cls - re) if cls > re else None


def _is_of(run: Run, row: Row, method: str, values: Values) -> bool:
    """Whether a run is one of a line; a teacher's seed may be none of its row's."""
    return (run.row, run.method, run.values) == (row.name, method, values) and run.seed in row.seeds


def _of_line(
    plan: dict[str, Run], results: dict[str, dict[str, Any]], row: Row, method: str, values: Values
) -> dict[int, dict[str, Any]]:
    """Seed to result."""
    return {
        run.seed: results[run.name]
        for run in sorted(plan.values(), key=lambda run: run.seed)
        if _is_of(run, row, method, values) and run.name in results
    }


def _figure(found: dict[int, dict[str, Any]], name: str) -> dict[str, float | None] | None:
    values = [row[name] for row in found.values() if row.get(name) is not None]
    return _spread(values) if values and len(values) == len(found) else None


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def _gains(
    plan: dict[str, Run],
    results: dict[str, dict[str, Any]],
    row: Row,
    values: Values,
    found: dict[int, dict[str, Any]],
) -> dict[str, Any]:
    """REKD over RE at the same seeds, and what it wins back of what RE loses to CLS at them."""

    def beside(method: str) -> dict[int, dict[str, Any]]:
        lines = row.lines(method) if method in row.methods else []
        matching = [line for line in lines if set(line) <= set(values)]
        return _of_line(plan, results, row, method, matching[0]) if matching else {}

    re, cls = beside("re"), beside("cls")
    both = sorted(found.keys() & re.keys())
    if not both:
        return {}
    entry: dict[str, Any] = {"gain": _spread([found[seed]["accuracy"] - re[seed]["accuracy"] for seed in both])}
    if all_three := sorted(cls.keys() & set(both)):
        means = [statistics.mean(each[seed]["accuracy"] for seed in all_three) for each in (cls, re, found)]
        if (share := won_back(*means)) is not None:
            entry["won_back"] = share
    return entry


def _published_gains(row: Row, values: Values) -> dict[str, float]:
    accuracy = {
        method: figure.get("accuracy")
        for method, figures in row.published.items()
        for line, figure in zip(row.lines(method), figures, strict=True)
        if set(line) <= set(values)
    }
    cls, re, rekd = (accuracy.get(method) for method in ("cls", "re", "rekd"))
    if re is None or rekd is None:
        return {}
    share = None if cls is None else won_back(cls, re, rekd)
    return {"gain": round(rekd - re, 6), **({} if share is None else {"won_back": round(share, 6)})}


def _mark_picked(entries: list[dict[str, Any]], results: dict[str, dict[str, Any]], plan: dict[str, Run]) -> None:
    """The line that `Resolver.pick` takes, once all are finished."""
    if any(entry["n"] < entry["of"] for entry in entries):
        return

    def rank(entry: dict[str, Any]) -> tuple[bool, float]:
        runs = [run for run in plan.values() if (run.row, run.method) == (entry["row"], entry["method"])]
        return rank_of_pick([results[run.name] for run in runs if dict(run.values) == entry["values"]])

    min(entries, key=rank)["picked"] = True


def _columns(lines: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Column title to cells; columns that no line fills are left out."""
    keys = list(dict.fromkeys(key for line in lines for key in line["values"]))
    tunes = any("picked" in line or "dev_loss" in line.get("published", {}) for line in lines)
    columns = {
        "row": [line["row"] for line in lines],
        "method": [line["method"].upper() for line in lines],
        **{key: [_plain(line["values"].get(key)) for line in lines] for key in keys},
        "n": [str(line["n"]) if line["n"] == line["of"] else f"{line['n']}/{line['of']}" for line in lines],
        "accuracy": [_cell(line.get("accuracy")) for line in lines],
        "published": [_published(line, "accuracy", "std") for line in lines],
        "ratio": [_cell(line.get("rationale_ratio"), percent=True) for line in lines],
        "publ. ratio": [_percent(line.get("published", {}).get("ratio")) for line in lines],
        "control": [_cell(line.get("random_mask_accuracy"), spread=False) for line in lines],
        "gain": [_cell(line.get("gain"), sign=True) for line in lines],
        "publ. gain": [_signed(line.get("published", {}).get("gain")) for line in lines],
        "won back": [_percent(line.get("won_back"), 0) for line in lines],
        "publ. won back": [_percent(line.get("published", {}).get("won_back"), 0) for line in lines],
        "F1": [_cell(line.get("rationale_f1"), spread=False) for line in lines],
    }
    if tunes:
        columns["dev loss"] = [
            _cell(line.get("dev_loss"), digits=4) + (" ←" if line.get("picked") else "") for line in lines
        ]
        columns["publ. dev loss"] = [_published(line, "dev_loss", None, 4) for line in lines]
    return {title: cells for title, cells in columns.items() if any(cells)}


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}%}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _cell(
    figure: dict[str, float | None] | None,
    percent: bool = False,
    sign: bool = False,
    spread: bool = True,
    digits: int = 3,
) -> str:
    """`mean (std)`."""
    if figure is None:
        return ""

    def spelled(value: float, sign: bool = sign) -> str:
        return _percent(value) if percent else f"{value:{'+' if sign else ''}.{digits}f}"

    mean, std = figure["mean"], figure["std"]
    assert mean is not None
    return spelled(mean) if std is None or not spread else f"{spelled(mean)} ({spelled(std, False)})"


def _published(line: dict[str, Any], name: str, std: str | None, digits: int = 3) -> str:
    given = line.get("published", {})
    if name not in given:
        return ""
    return _cell({"mean": given[name], "std": given.get(std) if std else None}, digits=digits)


def as_rich(lines: list[dict[str, Any]], width: int | None = None) -> Table:
    """For the terminal; columns that `width` characters have no room for are left out, and stand in `table.md`."""
    columns = _columns(lines)
    if "ratio" in columns:
        columns["ratio"] = [cell.partition(" ")[0] for cell in columns["ratio"]]
    spare = [title for title in _SPARE if title in columns]
    while (table := _rich(lines, columns)) and width and spare and _UNBOUNDED.measure(table).maximum > width:
        del columns[spare.pop(0)]
    return table


def _rich(lines: list[dict[str, Any]], columns: dict[str, list[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for title in columns:
        table.add_column(title, justify="left" if title in ("row", "method") else "right", no_wrap=True)
    for index, line in enumerate(lines):
        last = index + 1 == len(lines) or lines[index + 1]["row"] != line["row"]
        table.add_row(*(cells[index] for cells in columns.values()), end_section=last)
    return table


def as_markdown(title: str, source: str, lines: list[dict[str, Any]], failed: list[dict[str, str]]) -> str:
    """The table with its title, what its columns are, and what failed."""
    columns = _columns(lines)
    left = [":--" if name in ("row", "method") else "--:" for name in columns]
    rows = [[cells[index] for cells in columns.values()] for index in range(len(lines))]
    text = [f"# {title}", ""]
    text += ["| " + " | ".join(cells) + " |" for cells in (list(columns), left, *rows)]
    text += ["", legend(source)]
    if failed:
        text += ["", "Failed:", "", *(f"- `{each['run']}`: {each['error']}" for each in failed)]
    return "\n".join(text) + "\n"


def legend(source: str) -> str:
    """What the columns are."""
    return (
        "Accuracy on the test split, mean (standard deviation) over n seeds. ratio: share of the features selected; "
        "control: a predictor of the same size on random masks of that ratio; gain: REKD over RE at the same seeds; "
        "won back: (REKD − RE) / (CLS − RE)." + (f" Published: {source}." if source else "")
    )

"""Plots of a sweep's table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rekd_edge.sweep.rows import Grid, Row

__all__ = ["draw"]

_COLOURS = {"cls": "C7", "re": "C0", "rekd": "C1"}
Line = dict[str, Any]


def draw(grid: Grid, lines: list[Line], folder: Path) -> list[Path]:
    """Write the plots that the grid's rows call for, each atomically.

    `accuracy.png` has a point for each line that varies nothing, `KEY.png` the curves of rows that vary KEY (over the
    actual rationale ratio if KEY is `target_ratio`), `tune-KEY.png` dev loss and accuracy of rows that tune KEY.

    Args:
        grid: the grid.
        lines: its table, from `summarised`; lines without a finished run are left out.
        folder: where the plots are written.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    written = []

    for name, panels, paint in _pictures(grid, [line for line in lines if line["n"]]):
        figure, axes = pyplot.subplots(1, panels, figsize=(6 * panels, 4), layout="constrained", squeeze=False)
        paint(*axes[0])

        for panel in axes[0]:
            panel.grid(alpha=0.3)

        staged = folder / f".{name}.png"
        figure.savefig(staged, dpi=100, format="png", metadata={"Software": None})
        pyplot.close(figure)
        os.replace(staged, folder / f"{name}.png")
        written.append(folder / f"{name}.png")

    return written


def _pictures(grid: Grid, lines: list[Line]) -> Iterator[tuple[str, int, Any]]:
    plain = [line for line in lines if not grid.rows[line["row"]].vary and not grid.rows[line["row"]].tune]
    if plain:
        yield "accuracy", 1, lambda panel: _dots(panel, plain, grid.title)

    for key in dict.fromkeys(key for row in grid.rows.values() for key in row.vary):
        rows = [row for row in grid.rows.values() if key in row.vary and not row.tune]
        if any(line["row"] == row.name for line in lines for row in rows):
            yield key, 1, lambda panel, key=key, rows=rows: _curves(panel, key, rows, lines, grid.title)

    for key in dict.fromkeys(key for row in grid.rows.values() for key in row.tune):
        rows = [row for row in grid.rows.values() if key in row.tune]
        if any(line["row"] == row.name for line in lines for row in rows):
            yield f"tune-{key}", 2, lambda left, right, key=key, rows=rows: _tuned(left, right, key, rows, lines)


def _dots(panel: Any, lines: list[Line], title: str) -> None:
    """Accuracy by row, one colour per method."""
    rows = list(dict.fromkeys(line["row"] for line in lines))
    names = list(dict.fromkeys(line["line"] for line in lines))
    for place, name in enumerate(names):
        own = [line for line in lines if line["line"] == name]
        shift = 0.6 * ((place + 0.5) / len(names) - 0.5)
        at = [rows.index(line["row"]) + shift for line in own]
        colour = _COLOURS.get(name, f"C{place + len(_COLOURS)}")
        _bars(panel, at, own, "accuracy", fmt="o", color=colour, label=name.upper())

    panel.set_title(title, fontsize="small", wrap=True)
    panel.set(ylabel="test accuracy", xlim=(-0.6, len(rows) - 0.4))
    panel.set_xticks(range(len(rows)), rows)
    panel.legend(fontsize="small")


def _curves(panel: Any, key: str, rows: list[Row], lines: list[Line], title: str) -> None:
    """Accuracy over the varied setting, one curve per row and method."""
    over_ratio = key == "target_ratio"
    for place, row in enumerate(rows):
        for name in row.variants:
            own = [line for line in lines if (line["row"], line["line"]) == (row.name, name)]
            varied = [line for line in own if key in line["values"]]
            if not varied:  # of the whole input: the end of every curve
                if over_ratio and own:
                    panel.axhline(own[0]["accuracy"]["mean"], color=f"C{place}", ls=":", lw=1)
                continue

            at = [line["rationale_ratio"]["mean"] if over_ratio else _place(key, rows, line) for line in varied]
            mark = {"re": "o", "rekd": "s"}.get(name, "^")
            style = {"fmt": f"{mark}-", "color": f"C{place}", "label": f"{row.name} {name.upper()}"}
            _bars(panel, at, varied, "accuracy", **style)

    panel.set_title(title, fontsize="small", wrap=True)
    panel.set(xlabel="actual rationale ratio" if over_ratio else key, ylabel="test accuracy")

    if not over_ratio:
        _mark_values(panel, key, rows)

    panel.legend(fontsize="small")


def _tuned(left: Any, right: Any, key: str, rows: list[Row], lines: list[Line]) -> None:
    """Dev loss and accuracy over the values that were tried, evenly spaced; a ring marks the pick."""
    for place, row in enumerate(rows):
        own = [line for line in lines if line["row"] == row.name]
        at = [_place(key, rows, line) for line in own]
        joined = "o-" if len(row.tune) == 1 else "o"

        for panel, figure in ((left, "dev_loss"), (right, "dev_accuracy")):
            _bars(panel, at, own, figure, label=row.name, fmt=joined, color=f"C{place}")

        for x, line in zip(at, own, strict=True):
            if line.get("picked"):
                left.plot(x, line["dev_loss"]["mean"], "o", ms=14, mfc="none", color=f"C{place}")

    for panel, what in ((left, "dev loss"), (right, "dev accuracy")):
        panel.set(xlabel=key, ylabel=what)
        _mark_values(panel, key, rows)
        panel.legend(fontsize="small")


def _values(key: str, rows: list[Row]) -> list[Any]:
    """The values of a setting that the rows try."""
    return list(dict.fromkeys(value for row in rows for value in {**row.vary, **row.tune}[key]))


def _place(key: str, rows: list[Row], line: Line) -> int:
    """The position of a line on the axis of a setting, whose values need not be numbers."""
    return _values(key, rows).index(line["values"][key])


def _mark_values(panel: Any, key: str, rows: list[Row]) -> None:
    ticks = _values(key, rows)
    panel.set_xticks(range(len(ticks)), [f"{tick:g}" if isinstance(tick, float) else str(tick) for tick in ticks])


def _bars(panel: Any, at: Sequence[float], lines: list[Line], name: str, **style: Any) -> None:
    means = [line[name]["mean"] for line in lines]
    panel.errorbar(at, means, [line[name]["std"] or 0.0 for line in lines], capsize=3, **style)

"""A sweep's runs as lines: figures over the seeds, and differences between methods with their intervals.

results of runs ─► summarised ─► lines, one for each method and value of a row
grid            ─► published  ─► the paper's figures, kept apart from ours
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rekd_edge.methods import METHODS
from rekd_edge.sweep.intervals import of_difference, of_share
from rekd_edge.sweep.perform import rank_of_pick
from rekd_edge.sweep.plan import Run
from rekd_edge.sweep.rows import Grid, Row, Values, Variant

__all__ = ["CONTROL", "published", "summarised"]

CONTROL = "control"
"""The name of a difference to the random-mask control."""
_FIGURES = (
    *("accuracy", "dev_accuracy", "rationale_ratio", "rationale_accuracy", "random_mask_accuracy"),
    *("dev_loss", "dev_rationale_ratio", "rationale_f1"),
)
_ON_TEST = ("accuracy", "rationale_ratio", "rationale_accuracy", "random_mask_accuracy", "rationale_f1")

Results = dict[int, dict[str, Any]]
"""Rows of finished runs by seed."""
Line = dict[str, Any]


def summarised(grid: Grid, plan: dict[str, Run], results: dict[str, dict[str, Any]]) -> list[Line]:
    """One entry for each line of the grid, in its order, whatever the order of the runs.

    Args:
        grid: the grid.
        plan: all its runs.
        results: rows of finished runs by name.

    Returns:
        `row`, `line` (the method's name in the row), `method`, `role`, `values`, `n` finished `of` all; each figure
        that all finished runs have as `{"mean", "std"}` (sample standard deviation, None of one run); `differences` of
        test accuracy to the control and to other lines of the row, and for `rekd` the share of what RE loses to each
        CLS that it has `won_back`, as intervals; `tuned`, the settings that other rows chose on dev data; `picked` for
        the line that a tuning row picks.
    """
    table = _Table(grid, plan, results)
    lines = []

    for row in grid.rows.values():
        entries = [
            table.line(row, variant, values) for variant in row.variants.values() for values in row.lines(variant.name)
        ]
        if row.tune:
            table.mark_picked(row, entries)

        lines += entries

    return lines


@dataclass(frozen=True)
class _Table:
    grid: Grid
    plan: dict[str, Run]
    results: dict[str, dict[str, Any]]

    def line(self, row: Row, variant: Variant, values: Values) -> Line:
        """The entry of a line."""
        runs = self.of_line(row, variant.name, values)
        entry = {
            "row": row.name,
            "line": variant.name,
            "method": variant.method,
            "role": row.role,
            "values": dict(values),
            "n": len(runs),
            "of": sum(_is_of(run, row, variant.name, values) for run in self.plan.values()),
            **{name: figure for name in _FIGURES if (figure := _figure(runs, name)) is not None},
        }

        if row.tune:
            for name in _ON_TEST:  # a run may have been measured for another grid
                entry.pop(name, None)
            return entry

        if not METHODS[variant.method].selects:
            entry.pop("rationale_f1", None)  # it means nothing for a whole input

        more = {
            "differences": self.differences(row, variant, values, runs),
            "won_back": self.won_back(row, variant, values, runs),
            "tuned": self.tuned(variant, runs),
        }
        return entry | {name: value for name, value in more.items() if value}

    def of_line(self, row: Row, name: str, values: Values) -> Results:
        """The finished runs of a line."""
        return {
            run.seed: self.results[run.name]
            for run in sorted(self.plan.values(), key=lambda run: run.seed)
            if _is_of(run, row, name, values) and run.name in self.results
        }

    def beside(self, row: Row, name: str, values: Values) -> Results:
        """The runs of another line of the row, at the same values of the settings that both read."""
        matching = [line for line in row.lines(name) if set(line) <= set(values)]
        return self.of_line(row, name, matching[0]) if matching else {}

    def differences(self, row: Row, variant: Variant, values: Values, runs: Results) -> dict[str, Any]:
        """Differences in test accuracy to the control and to other lines, over their common seeds."""
        pairs: dict[str, list[float]] = {
            CONTROL: [
                result.get("rationale_accuracy", result["accuracy"]) - result["random_mask_accuracy"]
                for result in runs.values()
                if result.get("random_mask_accuracy") is not None and result["accuracy"] is not None
            ]
        }
        for name in _references(row, variant):
            other = self.beside(row, name, values)
            pairs[name] = [runs[seed]["accuracy"] - other[seed]["accuracy"] for seed in _measured(runs, other)]

        return {name: of_difference(differences) for name, differences in pairs.items() if differences}

    def won_back(self, row: Row, variant: Variant, values: Values, runs: Results) -> dict[str, Any]:
        """The share of the gap between RE and each CLS that distillation closes."""
        base = _undistilled(row, variant)
        if base is None or not METHODS[variant.method].selects:
            return {}

        re, shares = self.beside(row, base, values), {}
        for name in (name for name, other in row.variants.items() if other.method == "cls" and other.teacher is None):
            cls = self.beside(row, name, values)
            if seeds := _measured(runs, re, cls):
                won, lost = ([over[seed]["accuracy"] - re[seed]["accuracy"] for seed in seeds] for over in (runs, cls))
                shares[name] = of_share(won, lost)

        return {name: share for name, share in shares.items() if share is not None}

    def tuned(self, variant: Variant, runs: Results) -> dict[str, Any]:
        """For each setting, the values that were `tried` on dev data and the one `taken`."""
        tried = {key: values for name in variant.tuned for key, values in self.grid.rows[name].tune.items()}
        taken: dict[str, Any] = next((result["settings"] for result in runs.values() if "settings" in result), {})
        return {key: {"tried": values, "taken": taken[key]} for key, values in tried.items() if key in taken}

    def mark_picked(self, row: Row, entries: list[Line]) -> None:
        """Mark the line that `Resolver.pick` takes, once all runs are finished."""
        if any(entry["n"] < entry["of"] for entry in entries):
            return

        def rank(entry: Line) -> tuple[bool, float]:
            values = tuple(entry["values"].items())
            return rank_of_pick(list(self.of_line(row, entry["line"], values).values()))

        min(entries, key=rank)["picked"] = True


def published(grid: Grid) -> list[dict[str, Any]]:
    """The paper's figures in the grid: `row`, `line`, `values`, the figures, and REKD's gain over RE."""
    figures = []
    for row in grid.rows.values():
        for name, given in row.published.items():
            for values, figure in zip(row.lines(name), given, strict=True):
                entry = {"row": row.name, "line": name, "values": dict(values), **figure}
                figures.append(entry | (_published_gains(row, values) if name == "rekd" else {}))

    return figures


def _published_gains(row: Row, values: Values) -> dict[str, float]:
    accuracy = {
        name: figure.get("accuracy")
        for name, figures in row.published.items()
        for line, figure in zip(row.lines(name), figures, strict=True)
        if set(line) <= set(values)
    }
    cls, re, rekd = (accuracy.get(name) for name in ("cls", "re", "rekd"))
    if re is None or rekd is None:
        return {}

    gain = {"gain": round(rekd - re, 6)}
    return gain | ({"won_back": round((rekd - re) / (cls - re), 6)} if cls is not None and cls > re else {})


def _references(row: Row, variant: Variant) -> Iterator[str]:
    """The lines that a line is compared with: its undistilled method, RE, and every classifier of the whole input."""
    method = METHODS[variant.method]
    if (base := _undistilled(row, variant)) is not None:
        yield base

    if method.selects:
        if variant.name != "re" and "re" in row.variants and base != "re":
            yield "re"
        yield from (name for name, other in row.variants.items() if not METHODS[other.method].selects)
    elif base != "cls" and variant.name != "cls" and "cls" in row.variants:
        yield "cls"


def _undistilled(row: Row, variant: Variant) -> str | None:
    """The line of the same method without a teacher, which is RE for REKD."""
    if variant.teacher is None:
        return None
    wanted = "re" if METHODS[variant.method].teacher == "must" else variant.method
    other = row.variants.get(wanted)
    return wanted if other is not None and other.teacher is None else None


def _is_of(run: Run, row: Row, name: str, values: Values) -> bool:
    """Whether a run belongs to a line; a teacher may have a seed that its row does not list."""
    return (run.row, run.line, run.values) == (row.name, name, values) and run.seed in row.seeds


def _measured(*lines: Results) -> list[int]:
    """The seeds for which all lines have a test accuracy."""
    having = [{seed for seed, result in runs.items() if result.get("accuracy") is not None} for runs in lines]
    return sorted(set.intersection(*having))


def _figure(runs: Results, name: str) -> dict[str, float | None] | None:
    values = [result[name] for result in runs.values() if result.get(name) is not None]
    return _spread(values) if values and len(values) == len(runs) else None


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}

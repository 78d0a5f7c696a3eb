"""The table against means, deviations and shares taken by numpy from figures that are made up."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from rekd_edge.sweep.grid import Grid, load_grid
from rekd_edge.sweep.plan import expand
from rekd_edge.sweep.plots import draw
from rekd_edge.sweep.table import as_markdown, as_rich, summarised, won_back

TEXT = """\
title: made up
source: nowhere
recipe: planted
seeds: 4
methods: [cls, re, rekd]
settings: {control: null, warm_start: false}
rows:
  teacher: {methods: [re], layers: 2, seeds: 1}
  student:
    layers: 1
    teacher: teacher
    published: {cls: {accuracy: 0.9, std: 0.01}, re: {accuracy: 0.8, ratio: 0.1}, rekd: {accuracy: 0.875}}
"""
TUNED = """\
title: tuned
recipe: planted
seeds: 2
settings: {control: null, warm_start: false, target_ratio: 0.1}
rows:
  search: {methods: [re], layers: 1, tune: {lambda_select: [0.1, 1.0, 10.0]}}
  varied: {methods: [cls, re], layers: 1, vary: {target_ratio: [0.1, 0.3]}}
"""
ACCURACY = np.array([[0.91, 0.92, 0.93, 0.94], [0.7, 0.75, 0.72, 0.78], [0.8, 0.86, 0.81, 0.9]])


def made_up(grid: Grid, leave_out: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """A result for each run."""
    results = {}
    for run in expand(grid).values():
        accuracy = 0.5
        if run.row == "student":
            accuracy = ACCURACY[("cls", "re", "rekd").index(run.method), run.seed - 2026]
        target = dict(run.values).get("target_ratio", 0.1)
        results[run.name] = {
            "accuracy": float(accuracy),
            "rationale_ratio": target,
            "dev_rationale_ratio": target,
            "dev_loss": 0.4,
            "target_ratio": target,
            "random_mask_accuracy": None if run.method == "cls" else 0.6,
        }
    return {name: row for name, row in results.items() if name not in leave_out}


@pytest.fixture
def grid(write_grid: Callable[..., str]) -> Grid:
    return load_grid(write_grid(TEXT))


def test_figures_against_numpy(grid: Grid) -> None:
    lines = summarised(grid, expand(grid), made_up(grid))
    assert [(line["row"], line["method"]) for line in lines] == [
        ("teacher", "re"),
        ("student", "cls"),
        ("student", "re"),
        ("student", "rekd"),
    ]
    for line, accuracy in zip(lines[1:], ACCURACY, strict=True):
        assert line["n"] == line["of"] == 4
        assert line["accuracy"]["mean"] == pytest.approx(np.mean(accuracy))
        assert line["accuracy"]["std"] == pytest.approx(np.std(accuracy, ddof=1))
    gains = ACCURACY[2] - ACCURACY[1]
    assert lines[3]["gain"]["mean"] == pytest.approx(gains.mean())
    assert lines[3]["gain"]["std"] == pytest.approx(gains.std(ddof=1))
    cls, re, rekd = ACCURACY.mean(axis=1)
    assert lines[3]["won_back"] == pytest.approx((rekd - re) / (cls - re))
    assert lines[3]["published"] == {"accuracy": 0.875, "gain": pytest.approx(0.075), "won_back": pytest.approx(0.75)}
    assert lines[0]["accuracy"] == {"mean": 0.5, "std": None}
    assert "random_mask_accuracy" not in lines[1]
    assert lines[2]["random_mask_accuracy"] == {"mean": pytest.approx(0.6), "std": pytest.approx(0.0)}


def test_gains_are_those_of_common_seeds(grid: Grid) -> None:
    results = made_up(grid, leave_out=("student-re-2026", "student-cls-2027", "student-rekd-2029"))
    rekd = summarised(grid, expand(grid), results)[3]
    assert (rekd["n"], rekd["of"]) == (3, 4)
    gains = (ACCURACY[2] - ACCURACY[1])[[1, 2]]
    assert rekd["gain"]["mean"] == pytest.approx(gains.mean())
    cls, re, ours = ACCURACY[:, 2]  # the one seed that all three have
    assert rekd["won_back"] == pytest.approx((ours - re) / (cls - re))


def test_order_of_results_does_not_matter(grid: Grid) -> None:
    results = made_up(grid)
    backwards = dict(reversed(results.items()))
    assert summarised(grid, expand(grid), results) == summarised(grid, expand(grid), backwards)


def test_nothing_is_won_back_where_nothing_was_lost() -> None:
    assert won_back(0.8, 0.8, 0.9) is None
    assert won_back(0.8, 0.7, 0.75) == pytest.approx(0.5)


def test_pick_is_the_lowest_dev_loss_on_target(write_grid: Callable[..., str]) -> None:
    grid = load_grid(write_grid(TUNED))
    results = made_up(grid)
    for name, row in results.items():
        value = next((key for key in ("0.1", "10", "1") if f"lambda_select-{key}-" in name), "")
        row["dev_loss"] = {"0.1": 0.1, "1": 0.3, "10": 0.2}.get(value, 0.5)
        if value == "0.1":
            row["dev_rationale_ratio"] = 0.12  # more than a point beside the target
    lines = summarised(grid, expand(grid), results)
    assert [line["values"] for line in lines if line.get("picked")] == [{"lambda_select": 10.0}]
    del results["search-re-lambda_select-1-2027"]
    assert not any(line.get("picked") for line in summarised(grid, expand(grid), results))


def test_markdown_has_what_the_lines_have(grid: Grid) -> None:
    lines = summarised(grid, expand(grid), made_up(grid, leave_out=("student-cls-2026",)))
    failed = [{"run": "student-cls-2026", "error": "It broke."}]
    text = as_markdown(grid.title, grid.source, lines, failed)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines() if row.startswith("|")]
    cells = {row[1]: dict(zip(rows[0], row, strict=True)) for row in rows[3:]}
    mean, std = ACCURACY[2].mean(), ACCURACY[2].std(ddof=1)
    assert cells["REKD"]["accuracy"] == f"{mean:.3f} ({std:.3f})"
    assert cells["REKD"]["publ. won back"] == "75%"
    assert cells["CLS"]["n"] == "3/4"
    assert cells["CLS"]["published"] == "0.900 (0.010)"
    assert "- `student-cls-2026`: It broke." in text
    assert "Published: nowhere." in text


def test_narrow_terminals_lose_columns_and_no_figures(grid: Grid) -> None:
    lines = summarised(grid, expand(grid), made_up(grid))
    for width in (80, 300):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(as_rich(lines, width))
        text = console.export_text()
        assert "…" not in text
        assert f"{ACCURACY[2].mean():.3f} (" in text
        assert ("publ. won back" in text) == (width == 300)


def test_pictures(grid: Grid, write_grid: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = summarised(grid, expand(grid), made_up(grid, leave_out=("teacher-re-2026",)))
    assert [path.name for path in draw(grid, lines, tmp_path)] == ["accuracy.png"]
    tuned = load_grid(write_grid(TUNED))
    lines = summarised(tuned, expand(tuned), made_up(tuned))
    names = ["target_ratio.png", "tune-lambda_select.png"]
    assert [path.name for path in draw(tuned, lines, tmp_path)] == names
    for name in ("accuracy.png", *names):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert draw(tuned, summarised(tuned, expand(tuned), {}), tmp_path) == []


def test_published_figures_are_compared_line_by_line(write_grid: Callable[..., str]) -> None:
    """RE does not vary by α, so both lines of a ratio are compared with its one figure."""
    text = TEXT.replace(
        "published: {cls: {accuracy: 0.9, std: 0.01}, re: {accuracy: 0.8, ratio: 0.1}, rekd: {accuracy: 0.875}}",
        "vary: {target_ratio: [0.1, 0.3], alpha: [0.1, 0.5]}\n"
        "    published:\n      re: [{accuracy: 0.5}, {accuracy: 0.6}]\n"
        "      rekd: [{accuracy: 0.51}, {accuracy: 0.52}, {accuracy: 0.63}, {accuracy: 0.64}]",
    ).replace(
        "teacher: {methods: [re], layers: 2, seeds: 1}", "teacher: {methods: [re], layers: 2, seeds: 1, vary: RATIOS}"
    )
    grid = load_grid(write_grid(text.replace("RATIOS", "{target_ratio: [0.1, 0.3]}")))
    lines = [line for line in summarised(grid, expand(grid), made_up(grid)) if line["method"] == "rekd"]
    assert [line["published"]["gain"] for line in lines] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert [line["gain"]["mean"] for line in lines] == pytest.approx([(ACCURACY[2] - ACCURACY[1]).mean()] * 4)


def test_a_teacher_of_a_seed_of_its_own_is_none_of_its_line(write_grid: Callable[..., str]) -> None:
    grid = load_grid(write_grid(TEXT.replace("teacher: teacher\n", "teacher: teacher\n    teacher_seed: 7\n")))
    (line,) = [line for line in summarised(grid, expand(grid), made_up(grid)) if line["row"] == "teacher"]
    assert (line["n"], line["of"]) == (1, 1)

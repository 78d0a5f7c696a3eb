"""The table against means, deviations and intervals taken by numpy and scipy from figures that are made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rekd_edge.sweep.grid import Grid, load_grid
from rekd_edge.sweep.plan import expand
from rekd_edge.sweep.plots import draw
from rekd_edge.sweep.table import published, summarised

TEXT = """\
title: made up
source: nowhere
recipe: planted
seeds: 4
methods:
  cls: {}
  cls-accuracy: {method: cls, select_by: accuracy}
  cls-kd: {method: cls, teacher: teacher}
  re: {}
  rekd: {}
  plmr: {epochs: 3}
  plmr-kd: {method: plmr, teacher: teacher, epochs: 3}
settings: {control: null, warm_start: false}
rows:
  teacher: {methods: [cls, re], layers: 2, seeds: 1}
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
  final: {methods: [re], layers: 1, tuned: search}
"""
LINES = ("cls", "cls-accuracy", "cls-kd", "re", "rekd", "plmr", "plmr-kd")
ACCURACY = dict(
    zip(
        LINES,
        np.array(
            [
                [0.91, 0.92, 0.93, 0.94],
                [0.93, 0.92, 0.95, 0.94],
                [0.94, 0.95, 0.93, 0.96],
                [0.7, 0.75, 0.72, 0.78],
                [0.8, 0.86, 0.81, 0.9],
                [0.71, 0.74, 0.76, 0.73],
                [0.81, 0.79, 0.77, 0.82],
            ]
        ),
        strict=True,
    )
)
CONTROL = np.array([0.69, 0.73, 0.73, 0.75])


def made_up(grid: Grid, leave_out: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """A result for each run."""
    results = {}
    for run in expand(grid).values():
        accuracy, control = 0.5, 0.4
        if run.row == "student":
            accuracy, control = ACCURACY[run.line][run.seed - 2026], CONTROL[run.seed - 2026]
        target = dict(run.values).get("target_ratio", 0.1)
        results[run.name] = {
            "accuracy": None if run.tunes else float(accuracy),
            "rationale_ratio": target,
            "dev_accuracy": 0.6,
            "dev_rationale_ratio": target,
            "dev_loss": 0.4,
            "target_ratio": target,
            "random_mask_accuracy": None if run.method == "cls" or run.tunes else float(control),
            "settings": {**dict(run.values), **({"lambda_select": 10.0} if run.choices else {})},
        }
    return {name: row for name, row in results.items() if name not in leave_out}


@pytest.fixture
def grid(write_grid: Callable[..., str]) -> Grid:
    return load_grid(write_grid(TEXT))


def line_of(grid: Grid, name: str, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """A line of the students."""
    lines = summarised(grid, expand(grid), made_up(grid, leave_out))
    (line,) = [line for line in lines if (line["row"], line["line"]) == ("student", name)]
    return line


def test_figures_against_numpy(grid: Grid) -> None:
    lines = summarised(grid, expand(grid), made_up(grid))
    assert [(line["row"], line["line"]) for line in lines] == [
        ("teacher", "cls"),
        ("teacher", "re"),
        *(("student", name) for name in LINES),
    ]
    for name in LINES:
        line = line_of(grid, name)
        values = ACCURACY[name]
        assert (line["n"], line["of"]) == (4, 4)
        assert line["accuracy"] == {"mean": pytest.approx(values.mean()), "std": pytest.approx(values.std(ddof=1))}
        assert line["dev_accuracy"] == {"mean": pytest.approx(0.6), "std": pytest.approx(0.0)}
    assert lines[0]["accuracy"] == {"mean": 0.5, "std": None}
    assert "random_mask_accuracy" not in line_of(grid, "cls")
    assert line_of(grid, "re")["random_mask_accuracy"]["mean"] == pytest.approx(CONTROL.mean())


@pytest.mark.parametrize(
    ("name", "references"),
    [
        ("cls", []),
        ("cls-accuracy", ["cls"]),
        ("cls-kd", ["cls"]),
        ("re", ["control", "cls", "cls-accuracy", "cls-kd"]),
        ("rekd", ["control", "re", "cls", "cls-accuracy", "cls-kd"]),
        ("plmr", ["control", "re", "cls", "cls-accuracy", "cls-kd"]),
        ("plmr-kd", ["control", "plmr", "re", "cls", "cls-accuracy", "cls-kd"]),
    ],
)
def test_differences_are_those_of_paired_t_tests(name: str, references: list[str], grid: Grid) -> None:
    differences = line_of(grid, name).get("differences", {})
    assert list(differences) == references
    for reference, interval in differences.items():
        other = CONTROL if reference == "control" else ACCURACY[reference]
        expected = stats.ttest_rel(ACCURACY[name], other)
        bounds = expected.confidence_interval(0.95)
        assert interval["mean"] == pytest.approx((ACCURACY[name] - other).mean())
        assert (interval["low"], interval["high"]) == pytest.approx((bounds.low, bounds.high))
        assert interval["n"] == 4


def test_share_won_back_of_each_classifier(grid: Grid) -> None:
    shares = line_of(grid, "rekd")["won_back"]
    assert list(shares) == ["cls", "cls-accuracy"]
    won = ACCURACY["rekd"] - ACCURACY["re"]
    for name, share in shares.items():
        lost = ACCURACY[name] - ACCURACY["re"]
        assert share["mean"] == pytest.approx(won.mean() / lost.mean())
        for bound in (share["low"], share["high"]):
            assert stats.ttest_1samp(won - bound * lost, 0.0).pvalue == pytest.approx(0.05)
    assert not any("won_back" in line_of(grid, name) for name in ("cls-kd", "re", "plmr"))


def test_pairs_are_those_of_common_seeds(grid: Grid) -> None:
    missing = ("student-re-2026", "student-cls-2027", "student-rekd-2029")
    line = line_of(grid, "rekd", missing)
    assert (line["n"], line["of"]) == (3, 4)
    gains = (ACCURACY["rekd"] - ACCURACY["re"])[[1, 2]]
    assert line["differences"]["re"]["mean"] == pytest.approx(gains.mean())
    assert line["differences"]["re"]["n"] == 2
    cls, re, ours = (ACCURACY[name][2] for name in ("cls", "re", "rekd"))  # the one seed that all three have
    share = line["won_back"]["cls"]
    assert (share["mean"], share["low"], share["n"]) == (pytest.approx((ours - re) / (cls - re)), None, 1)


def test_a_rationale_that_is_no_mask_is_compared_by_what_it_is_worth_alone(grid: Grid) -> None:
    results = made_up(grid)
    for run in expand(grid).values():
        if run.line == "plmr":
            results[run.name]["rationale_accuracy"] = 0.65
    lines = summarised(grid, expand(grid), results)
    (line,) = [line for line in lines if line["line"] == "plmr"]
    assert line["differences"]["control"]["mean"] == pytest.approx(0.65 - CONTROL.mean())
    assert line["differences"]["re"]["mean"] == pytest.approx((ACCURACY["plmr"] - ACCURACY["re"]).mean())


def test_order_of_results_does_not_matter(grid: Grid) -> None:
    results = made_up(grid)
    backwards = dict(reversed(results.items()))
    assert summarised(grid, expand(grid), results) == summarised(grid, expand(grid), backwards)


def test_pick_is_the_lowest_dev_loss_on_target(write_grid: Callable[..., str]) -> None:
    grid = load_grid(write_grid(TUNED))
    results = made_up(grid)
    for name, row in results.items():
        value = next((key for key in ("0.1", "10", "1") if f"lambda_select-{key}-" in name), "")
        row["dev_loss"] = {"0.1": 0.1, "1": 0.3, "10": 0.2}.get(value, 0.5)
        if value == "0.1":
            row["dev_rationale_ratio"] = 0.12  # more than a point beside the target
    lines = summarised(grid, expand(grid), results)
    assert not any("accuracy" in line for line in lines if line["row"] == "search")
    assert lines[-1]["tuned"] == {"lambda_select": {"tried": [0.1, 1.0, 10.0], "taken": 10.0}}
    assert [line["values"] for line in lines if line.get("picked")] == [{"lambda_select": 10.0}]
    del results["search-re-lambda_select-1-2027"]
    assert not any(line.get("picked") for line in summarised(grid, expand(grid), results))


def test_pictures(grid: Grid, write_grid: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = summarised(grid, expand(grid), made_up(grid, leave_out=("teacher-re-2026",)))
    assert [path.name for path in draw(grid, lines, tmp_path)] == ["accuracy.png"]
    tuned = load_grid(write_grid(TUNED))
    lines = summarised(tuned, expand(tuned), made_up(tuned))
    names = ["accuracy.png", "target_ratio.png", "tune-lambda_select.png"]
    assert [path.name for path in draw(tuned, lines, tmp_path)] == names
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert draw(tuned, summarised(tuned, expand(tuned), {}), tmp_path) == []


def test_published_figures_stand_apart(grid: Grid) -> None:
    assert not any("published" in line for line in summarised(grid, expand(grid), made_up(grid)))
    assert published(grid) == [
        {"row": "student", "line": "cls", "values": {}, "accuracy": 0.9, "std": 0.01},
        {"row": "student", "line": "re", "values": {}, "accuracy": 0.8, "ratio": 0.1},
        {"row": "student", "line": "rekd", "values": {}, "accuracy": 0.875, "gain": 0.075, "won_back": 0.75},
    ]


def test_published_figures_are_compared_line_by_line(write_grid: Callable[..., str]) -> None:
    """RE does not vary by α, so both lines of a ratio are compared with its one figure."""
    text = """\
recipe: planted
settings: {control: null, warm_start: false}
rows:
  teacher: {methods: [re], layers: 2, seeds: 1, vary: {target_ratio: [0.1, 0.3]}}
  student:
    methods: [re, rekd]
    teacher: teacher
    vary: {target_ratio: [0.1, 0.3], alpha: [0.1, 0.5]}
    published:
      re: [{accuracy: 0.5}, {accuracy: 0.6}]
      rekd: [{accuracy: 0.51}, {accuracy: 0.52}, {accuracy: 0.63}, {accuracy: 0.64}]
"""
    figures = [figure for figure in published(load_grid(write_grid(text))) if figure["line"] == "rekd"]
    assert [figure["gain"] for figure in figures] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert [figure["values"]["alpha"] for figure in figures] == [0.1, 0.5, 0.1, 0.5]


def test_a_varied_line_is_compared_at_its_own_values(write_grid: Callable[..., str]) -> None:
    text = TEXT.replace("    layers: 1\n", "    layers: 1\n    vary: {target_ratio: [0.1, 0.3], alpha: [0.2, 0.4]}\n")
    text = text.replace("layers: 2, seeds: 1}", "layers: 2, seeds: 1, vary: {target_ratio: [0.1, 0.3]}}")
    grid = load_grid(write_grid(text[: text.index("    published")]))
    results = made_up(grid)
    for run in expand(grid).values():
        if run.line == "re" and dict(run.values)["target_ratio"] == 0.3:
            results[run.name]["accuracy"] -= 0.1
    lines = [line for line in summarised(grid, expand(grid), results) if line["line"] == "rekd"]
    gain = (ACCURACY["rekd"] - ACCURACY["re"]).mean()
    assert [line["differences"]["re"]["mean"] for line in lines] == pytest.approx([gain, gain, gain + 0.1, gain + 0.1])


def test_a_teacher_of_a_seed_of_its_own_is_none_of_its_line(write_grid: Callable[..., str]) -> None:
    grid = load_grid(write_grid(TEXT.replace("    teacher: teacher\n", "    teacher: teacher\n    teacher_seed: 7\n")))
    lines = [line for line in summarised(grid, expand(grid), made_up(grid)) if line["row"] == "teacher"]
    assert "teacher-re-7" in expand(grid)
    assert [(line["n"], line["of"]) for line in lines] == [(1, 1), (1, 1)]

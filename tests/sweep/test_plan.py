"""A grid's runs, counted by hand: which there are, what they need, and which settings they have."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from rekd_edge.errors import InputError
from rekd_edge.sweep.grid import load_grid, shipped_grids
from rekd_edge.sweep.plan import Run, closure, expand
from rekd_edge.sweep.run import describe
from rekd_edge.training.control import controls_of

TWO_SIZES = """\
recipe: planted
seeds: 3
methods: {cls: {epochs: 4}, re: {}, rekd: {lambda_r: 1.0}}
rows:
  teacher: {methods: [re], layers: 2, seeds: 1}
  one: {layers: 1, teacher: teacher}
  two: {layers: 2, teacher: teacher}
"""


def plan_of(write_grid: Callable[..., str], text: str, **settings: str) -> dict[str, Run]:
    return expand(load_grid(write_grid(text), settings))


def test_runs_counted_by_hand(write_grid: Callable[..., str]) -> None:
    plan = plan_of(write_grid, TWO_SIZES)
    # the teacher and its control; of two sizes and three seeds CLS, RE, REKD and a control, but the control of two
    # layers and the first seed, which is the teacher's too
    assert len(plan) == 2 + 2 * 3 * 4 - 1
    assert plan["teacher-re-2026"].control == plan["two-rekd-2026"].control == "teacher-control-2026"
    assert plan["one-re-2027"].needs == ("one-control-2027",)
    assert plan["one-rekd-2027"].needs == ("teacher-re-2026", "one-control-2027")
    assert plan["one-cls-2027"].needs == ()
    assert plan["one-control-2027"].needs == ()
    assert plan["teacher-re-2026"].role == "teacher"
    assert plan["one-rekd-2026"].role == "student"


def test_what_is_needed_comes_first(write_grid: Callable[..., str]) -> None:
    text = TWO_SIZES.replace("rows:\n", "rows:\n  first: {layers: 1, teacher: teacher, teacher_seed: 2028}\n")
    plan = plan_of(write_grid, text.replace("layers: 2, seeds: 1", "layers: 2"))
    seen: set[str] = set()
    for name, run in plan.items():
        assert set(run.needs) <= seen, name
        seen.add(name)
    assert plan["first-rekd-2026"].teacher == "teacher-re-2028"
    assert plan["one-rekd-2027"].teacher == "teacher-re-2026"


def test_settings_of_runs(write_grid: Callable[..., str]) -> None:
    plan = plan_of(write_grid, TWO_SIZES)
    student = plan["two-rekd-2027"].config("T", "C", {"alpha": 0.7})
    assert (student.method, student.layers, student.seed, student.teacher) == ("rekd", 2, 2027, "T")
    assert (student.control, student.lambda_r, student.alpha, student.epochs) == ("C", 1.0, 0.7, 2)
    controls = plan["one-control-2027"]
    assert (controls.method, controls.trains_controls, controls.control) == ("control", True, "train")
    planned = controls_of(controls.config(None, "train", {}))
    assert [control.name for control in planned] == ["control", "control-descent", "control-fixed"]
    assert {(control.config.layers, control.config.seed, control.config.epochs) for control in planned} == {
        (1, 2027, 2)
    }
    assert plan["one-cls-2026"].config(None, None, {}).epochs == 4


@pytest.mark.parametrize(
    ("settings", "controls"),
    [
        ("{}", 1),
        ("{re: {lambda_select: 0.1, generator_layers: 1}}", 1),
        ("{re: {target_ratio: 0.2}}", 2),
        ("{re: {learning_rate: 0.01}}", 2),
        ("{re: {control: null, warm_start: false}}", 1),
        ("{re: {class_ratios: 'neg:0.1,pos:0.2'}}", 1),  # trained within its run
    ],
)
def test_controls_are_shared_where_they_are_alike(write_grid: Callable[..., str], settings: str, controls: int) -> None:
    methods = "{re: {}, rekd: {}}" if settings == "{}" else settings[:-1] + ", rekd: {}}"
    teacher = "{layers: 1, methods: [re], settings: {epochs: 9}}"
    text = f"recipe: planted\nmethods: {methods}\nrows: {{t: {teacher}, s: {{layers: 1, teacher: t}}}}"
    plan = plan_of(write_grid, text)
    own = [run.name for run in plan.values() if run.method == "control" and run.row == "s"]
    assert len(own) == controls
    if "class_ratios" in settings:
        assert plan["s-re-2026"].control == "train"
    if "null" in settings:
        assert plan["s-re-2026"].control is None


def test_varied_ratios(write_grid: Callable[..., str]) -> None:
    text = "recipe: digits\nseeds: 2\nmethods: [cls, re]\nrows: {a: {layers: 1, vary: {target_ratio: [0.05, 0.5]}}}"
    plan = plan_of(write_grid, text)
    assert sorted(plan) == sorted(
        name
        for seed in (2026, 2027)
        for name in (
            f"a-cls-{seed}",
            *(f"a-{method}-target_ratio-{ratio}-{seed}" for method in ("re", "control") for ratio in (0.05, 0.5)),
        )
    )
    assert plan["a-control-target_ratio-0.5-2027"].config(None, "train", {}).target_ratio == 0.5


def test_tuned_rows_wait_for_the_tuning_runs(write_grid: Callable[..., str]) -> None:
    text = """\
recipe: planted
seeds: 2
rows:
  lambda: {methods: [re], layers: 1, tune: {lambda_select: [0.1, 1.0]}}
  teacher: {methods: [re], layers: 2, seeds: 1}
  alpha: {methods: [rekd], layers: 1, teacher: teacher, tuned: lambda, tune: {alpha: [0.0, 0.3, 0.5]}}
  final: {methods: [cls, rekd], layers: 1, teacher: teacher, tuned: [lambda, alpha]}
"""
    plan = plan_of(write_grid, text)
    # 2 x 2 + 1 + 3 x 2 + 2 x 2, and controls: of one layer at two seeds, of two layers at one
    assert len(plan) == 4 + 1 + 6 + 4 + 3
    tuning = {name for name in plan if name.startswith("lambda-re")}
    assert set(plan["alpha-rekd-alpha-0.3-2027"].needs) == {"teacher-re-2026", "lambda-control-2027", *tuning}
    assert len(plan["final-rekd-2026"].needs) == 2 + 4 + 6
    assert plan["final-cls-2026"].needs == ()
    assert set(closure("final-rekd-2026", plan)) >= tuning


def test_controls_wait_for_the_picks_that_shape_them(write_grid: Callable[..., str]) -> None:
    text = """\
recipe: planted
rows:
  rate: {methods: [re], layers: 1, tune: {learning_rate: [0.1, 0.2]}}
  lambda: {methods: [re], layers: 1, tune: {lambda_select: [0.1, 0.2]}}
  final: {methods: {re: {tuned: [rate, lambda]}, plain: {method: re, tuned: lambda}}, layers: 1}
"""
    plan = plan_of(write_grid, text)
    shaped, plain = plan["final-re-2026"], plan["final-plain-2026"]
    assert [choice.row for choice in shaped.choices] == ["rate", "lambda"]
    assert [choice.row for choice in plan[str(shaped.control)].choices] == ["rate"]
    assert plain.control == "lambda-control-2026"  # what is picked for it leaves its controls as they are
    picked = plan[str(shaped.control)].config(None, "train", {"learning_rate": 0.2})
    assert {control.config.learning_rate for control in controls_of(picked)} == {0.2}


def test_a_line_is_not_varied_by_what_its_method_knows_nothing_of(write_grid: Callable[..., str]) -> None:
    text = """\
recipe: planted
rows:
  t: {methods: [re], layers: 2}
  s: {methods: [cls, re, rekd], layers: 1, teacher: t, vary: {alpha: [0.1, 0.2], temperature_start: [2.0, 5.0]}}
"""
    names = [name for name in plan_of(write_grid, text) if name.startswith("s-")]
    assert len([name for name in names if name.startswith("s-cls")]) == 1
    assert len([name for name in names if name.startswith("s-re-")]) == 2
    assert len([name for name in names if name.startswith("s-rekd")]) == 4
    assert len([name for name in names if "control" in name]) == 1


def test_teachers_and_picks_of_a_method_alone(write_grid: Callable[..., str]) -> None:
    text = """\
recipe: planted
seeds: 2
rows:
  large: {methods: [cls, re], layers: 2}
  search: {methods: [rekd], layers: 1, teacher: large, seeds: 1, tune: {alpha: [0.1, 0.2]}}
  small:
    layers: 1
    teacher: large
    methods:
      cls: {}
      cls-kd: {method: cls, teacher: large, teacher_seed: same, alpha: 0.5}
      re: {}
      rekd: {tuned: search}
      self: {method: rekd, teacher: small, teacher_seed: same}
"""
    plan = plan_of(write_grid, text)
    assert plan["small-cls-2027"].teacher is None
    assert plan["small-cls-kd-2027"].teacher == "large-cls-2027"
    assert plan["small-cls-kd-2027"].config("T", None, {}).alpha == 0.5
    assert plan["small-rekd-2027"].teacher == "large-re-2026"
    assert plan["small-self-2027"].teacher == "small-re-2027"
    assert (plan["small-self-2027"].method, plan["small-self-2027"].line) == ("rekd", "self")
    assert {run.name for run in plan.values() if run.choices} == {"small-rekd-2026", "small-rekd-2027"}
    assert {run.name for run in plan.values() if run.tunes} == {
        "search-rekd-alpha-0.1-2026",
        "search-rekd-alpha-0.2-2026",
    }


def test_workers_need_not_stand_where_the_sweep_was_started(
    write_grid: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("texts", "net"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine.yaml").write_text("data: {spec: texts}\nbackbone: bilstm:net\nepochs: 1\nmask_mode: zero\n")
    (run,) = plan_of(write_grid, "recipe: mine.yaml\nrows: {a: {methods: [cls]}}").values()
    monkeypatch.chdir("/")
    config = run.config(None, None, {})
    assert (config.spec, config.backbone) == (str(tmp_path / "texts"), f"bilstm:{tmp_path / 'net'}")


def test_students_and_teachers_vary_together(write_grid: Callable[..., str]) -> None:
    text = """\
recipe: planted
rows:
  t: {methods: [re], layers: 2, vary: {target_ratio: [0.1, 0.2]}}
  s: {methods: [rekd], layers: 1, teacher: t, vary: {target_ratio: [0.1, 0.2]}}
"""
    plan = plan_of(write_grid, text)
    assert plan["s-rekd-target_ratio-0.2-2026"].teacher == "t-re-target_ratio-0.2-2026"
    with pytest.raises(InputError, match="vary what its teacher"):
        plan_of(write_grid, text.replace("teacher: t, vary: {target_ratio: [0.1, 0.2]}", "teacher: t"))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ("{layer: 1}", "'layer'"),
        ("{alpha: 7}", "alpha"),
        ("{control: runs/x}", "train or null"),
        ("{data: 1}", "'data'"),
    ],
)
def test_bad_settings_are_refused(write_grid: Callable[..., str], settings: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        plan_of(write_grid, f"recipe: planted\nrows: {{a: {{methods: [re], settings: {settings}}}}}")


def test_a_teacher_must_select(write_grid: Callable[..., str]) -> None:
    with pytest.raises(InputError, match="no re run"):
        load_grid(write_grid("recipe: planted\nrows: {a: {methods: [rekd], teacher: b}, b: {methods: [cls]}}"))


@pytest.mark.parametrize("name", shipped_grids())
def test_shipped_grids_expand(name: str) -> None:
    """Every run's settings are a `TrainingConfig`, with the data and backbone that a sweep needs."""
    plan = expand(load_grid(name))
    for run in plan.values():
        config = run.config(run.teacher, run.control, {})
        assert config.spec
        assert config.backbone
        assert set(run.needs) <= plan.keys()
    assert len(describe(load_grid(name))) == len(plan)


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        # ten seeds: base CLS and RE, two students CLS, RE and REKD, three controls
        ("paper-table1", 10 * (2 + 3 + 3 + 3)),
        # BERT-small's RE has a ratio, and so a control, of its own
        ("paper-table3", 10 * (2 + 3 + 3 + 4)),
        ("paper-figure2", 10 * 3 * (8 + 1)),
        # three sizes x six λ; two sizes x two data sets x four α; two teachers with their controls
        ("paper-appendix-c-vit", 10 * (3 * 6 + 2 * 2 * 4) + 2 * 2),
        ("paper-appendix-c-bert", 10 * 3 * 6),
        ("digits", 2 + 3 * 4),
    ],
)
def test_runs_of_the_papers_tables(name: str, runs: int) -> None:
    assert len(expand(load_grid(name))) == runs


def test_teacher_seeds_of_the_paper() -> None:
    assert expand(load_grid("paper-table1"))["tiny-rekd-2026"].teacher == "base-re-2029"
    assert expand(load_grid("paper-table2"))["small-rekd-2035"].teacher == "base-re-2031"
    assert expand(load_grid("paper-table1", seeds=2))["tiny-rekd-2026"].teacher == "base-re-2029"
    assert expand(load_grid("small-table1"))["tiny-rekd-2026"].teacher == "base-re-2026"
    assert expand(load_grid("paper-appendix-c-vit"))["tiny-alpha-100-rekd-alpha-0.5-2026"].teacher == "base-100-re-2031"


@pytest.mark.parametrize("name", ["referee-imdb", "referee-cifar10"])
def test_every_method_of_a_fair_comparison_chose_among_as_many_candidates(name: str) -> None:
    grid, tried = load_grid(name), load_grid(f"{name}-dev")
    plan = expand(tried)
    rows = {line: row for row in tried.rows.values() for line in row.variants if row.tune}
    assert {run.row for run in plan.values() if run.tunes} == {row.name for row in rows.values()}
    assert len({math.prod(map(len, row.tune.values())) for row in rows.values()}) == 1

    assert not {run.seed for run in plan.values()} & set(grid.rows["student"].seeds)
    assert len(grid.rows["student"].seeds) == 5
    taken = grid.rows["student"].variants
    assert set(rows) <= set(taken)
    for line, row in rows.items():  # what is taken is one of what was tried
        candidate, ours = row.variants[line], taken[line]
        assert (candidate.method, candidate.teacher) == (ours.method, ours.teacher)
        assert any({**candidate.settings, **dict(values)} == ours.settings for values in row.lines(line))


def test_places_are_replaced(write_grid: Callable[..., str]) -> None:
    plan = expand(load_grid("paper-table1", {"data.spec": "here", "tiny.backbone": "there"}))
    config = plan["tiny-re-2026"].config(None, "C", {})
    assert (config.spec, config.backbone) == ("here", "there")
    assert plan["small-re-2026"].config(None, "C", {}).backbone == "WinKawaks/vit-small-patch16-224"

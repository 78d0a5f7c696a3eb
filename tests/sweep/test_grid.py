"""Grids: a strict schema, and what a grid takes over from another or from the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rekd_edge.errors import InputError
from rekd_edge.sweep.grid import load_grid, shipped_grids

BASE = """\
title: one
recipe: planted
seeds: [7, 9]
settings: {epochs: 3}
methods: {cls: {epochs: 6}, re: {}}
rows:
  big: {layers: 2, settings: {batch_size: 16}, published: {re: {accuracy: 0.9}}}
  small: {layers: 1}
"""


def test_levels_of_settings(write_grid: Callable[..., str]) -> None:
    rows = load_grid(write_grid(BASE), {"batch_size": "8", "small.learning_rate": "0.1"}).rows
    assert {name: variant.settings for name, variant in rows["big"].variants.items()} == {
        "cls": {"epochs": 6, "layers": 2, "batch_size": "8"},
        "re": {"epochs": 3, "layers": 2, "batch_size": "8"},
    }
    expected = {"epochs": 3, "layers": 1, "batch_size": "8", "learning_rate": "0.1"}
    assert rows["small"].variants["re"].settings == expected
    assert rows["small"].seeds == (7, 9)


@pytest.mark.parametrize(("asked", "expected"), [(1, (7,)), (2, (7, 9)), (4, (7, 9, 10, 11))])
def test_number_of_seeds(write_grid: Callable[..., str], asked: int, expected: tuple[int, ...]) -> None:
    assert load_grid(write_grid(BASE), seeds=asked).rows["big"].seeds == expected


def test_base_is_merged(write_grid: Callable[..., str]) -> None:
    write_grid(BASE, "one")
    grid = load_grid(
        write_grid(
            "title: two\nbase: one\nsettings: {control: null, alpha: 0.5}\n"
            "rows:\n  big: {layers: null, settings: {epochs: 1}}\n  small: null\n  other: {methods: [re], seeds: 1}\n",
            "two",
        )
    )
    assert grid.title == "two"
    assert grid.recipe == "planted"
    assert list(grid.rows) == ["big", "other"]
    settings = {"epochs": 1, "control": None, "alpha": 0.5, "batch_size": 16}
    assert grid.rows["big"].variants["re"].settings == settings
    assert grid.rows["big"].published == {"re": [{"accuracy": 0.9}]}
    assert grid.rows["other"].seeds == (7,)


def test_lines_of_a_row(write_grid: Callable[..., str]) -> None:
    text = "rows:\n  one: {methods: [cls, re], vary: {target_ratio: [0.1, 0.2], layers: [1, 2]}}\n"
    row = load_grid(write_grid(text)).rows["one"]
    ratios = [(("target_ratio", r), ("layers", k)) for r in (0.1, 0.2) for k in (1, 2)]
    assert row.lines("re") == ratios
    assert row.lines("cls") == [(("layers", 1),), (("layers", 2),)]


def test_methods_under_other_names(write_grid: Callable[..., str]) -> None:
    text = """\
recipe: planted
methods: {cls: {epochs: 4}, re: {}, rekd: {}, cls-kd: {method: cls, teacher: big, epochs: 4, alpha: 0.5}}
rows:
  big: {methods: [cls, re]}
  search: {methods: [rekd], teacher: big, tune: {learning_rate: [0.1, 0.2]}}
  small: {teacher: big, teacher_seed: same, vary: {alpha: [0.1, 0.2]}}
  tuned: {methods: {re: {}, rekd: {teacher: big, tuned: search}, self: {method: rekd, teacher: tuned}}}
"""
    rows = load_grid(write_grid(text)).rows
    variants = rows["small"].variants
    assert {name: (each.method, each.teacher, each.teacher_seed) for name, each in variants.items()} == {
        "cls": ("cls", None, None),
        "re": ("re", None, None),
        "rekd": ("rekd", "big", "same"),
        "cls-kd": ("cls", "big", None),
    }
    assert variants["cls-kd"].settings == {"epochs": 4, "alpha": 0.5}
    assert {name: len(rows["small"].lines(name)) for name in variants} == {"cls": 1, "re": 1, "rekd": 2, "cls-kd": 2}
    assert [variant.tuned for variant in rows["tuned"].variants.values()] == [(), ("search",), ()]
    assert (rows["big"].role, rows["tuned"].role) == ("teacher", "student")  # teaching itself makes no teacher of a row


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("titel: x\nrows: {a: {methods: [re]}}", ["'titel'", "did you mean title?"]),
        ("rows: {a: {methods: [re], layer: 1}}", ["'layer'", "row 'a'", "layers"]),
        ("rows: {a: {methods: [ra]}}", ["no method 'ra'"]),
        ("rows: {a: {methods: [control]}}", ["controls by itself"]),
        ("rows: {a: {layers: 1}}", ["no methods"]),
        ("rows: {}", ["no rows"]),
        ("rows: [a]", ["rows must be a mapping"]),
        ("rows: {a b: {methods: [re]}}", ["cannot name a row"]),
        ("rows: {../a: {methods: [re]}}", ["cannot name a row"]),
        ("rows: {a: {methods: [rekd]}}", ["needs a teacher"]),
        ("rows: {a: {methods: [rekd], teacher: b}}", ["'b', which is no row"]),
        ("rows: {a: {methods: [rekd], teacher: a}}", ["wait for each other: a → a"]),
        ("rows: {a: {methods: [re], tuned: b}, b: {methods: [re]}}", ["must name rows that have `tune`"]),
        ("rows: {a: {methods: [re, rekd], teacher: b, tune: {alpha: [0]}}, b: {methods: [re]}}", ["one method"]),
        ("rows: {a: {methods: [re], vary: {alpha: 0.1}}}", ["a list of values for alpha"]),
        ("rows: {a: {methods: [re], settings: {seed: 1}}}", ["cannot hold seed"]),
        ("rows: {a: {methods: [re], published: {re: {accurracy: 1}}}}", ["'accurracy'", "did you mean accuracy?"]),
        (
            "rows: {a: {methods: [re], vary: {epochs: [1, 2]}, published: {re: {accuracy: 1}}}}",
            ["1 figures", "2 lines"],
        ),
        ("rows: {a: {methods: [re], vary: {alpha: [0, 1]}}}", ["alpha, of which re knows nothing"]),
        (
            "rows: {a: {methods: [rekd], teacher: [b]}, b: {methods: [re]}}",
            ["teacher of rekd of row 'a' must be a text"],
        ),
        ("rows: {a: {methods: [[re]]}}", ["a method of row 'a' must be a text"]),
        ("rows: {a: {methods: [re], tuned: [{b: 1}]}}", ["tuned of re of row 'a' must name rows"]),
        ("rows: {a: {methods: {re: {teacher: b}}}, b: {methods: [re]}}", ["re of row 'a' learns from no teacher"]),
        ("rows: {a: {methods: {cls-kd: {method: cls, teacher: b}}}, b: {methods: [re]}}", ["no cls run"]),
        ("rows: {a: {methods: {kd: {}}}}", ["no method 'kd'"]),
        ("rows: {a: {methods: {kd: {method: control}}}}", ["controls by itself"]),
        ("rows: {a: {methods: {../kd: {method: re}}}}", ["cannot name a method"]),
        (
            "rows: {a: {methods: {re: {}, own: {method: rekd, teacher: a, teacher_seed: last}}}}",
            ["teacher_seed", "'last'"],
        ),
        ("rows: {a: {methods: [re], settings: {1: 2}}}", ["The key 1 in settings of row 'a'"]),
        ("seeds: [true]\nrows: {a: {methods: [re]}}", ["a seed must be"]),
        ("seeds: many\nrows: {a: {methods: [re]}}", ["seeds must be"]),
        ("base: grid\nrows: {a: {methods: [re]}}", ["its own base"]),
        ("rows: {a: [", ["not valid YAML"]),
    ],
)
def test_refused(write_grid: Callable[..., str], text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as refusal:
        load_grid(write_grid(text))
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize(("key", "word"), [("seed", "--seeds"), ("method", "grid"), ("epochs", "varies epochs")])
def test_overrides_that_are_refused(write_grid: Callable[..., str], key: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        load_grid(write_grid("rows: {a: {methods: [re], vary: {epochs: [1, 2]}}}"), {key: "1"})


def test_what_another_row_picks_cannot_be_set(write_grid: Callable[..., str]) -> None:
    text = "rows: {a: {methods: [re], tune: {lambda_select: [1, 2]}}, b: {methods: [re], tuned: a}}"
    with pytest.raises(InputError, match="'b' takes lambda_select from 'a'"):
        load_grid(write_grid(text), {"b.lambda_select": "3"})


def test_no_such_grid() -> None:
    with pytest.raises(InputError, match="paper-table1"):
        load_grid("paper-tabel1")


def test_published_figures_of_the_paper() -> None:
    """Tables 1 to 3 of arXiv 2601.22531, as shared/reference/method.md has them."""
    tables = {
        "paper-table1": {"base": (0.984, 0.964, None), "small": (0.981, 0.889, 0.968), "tiny": (0.968, 0.797, 0.936)},
        "paper-table2": {"base": (0.947, 0.830, None), "small": (0.944, 0.779, 0.845), "tiny": (0.903, 0.645, 0.777)},
        "paper-table3": {"base": (0.914, 0.912, None), "small": (0.889, 0.881, 0.906), "mini": (0.877, 0.863, 0.892)},
    }
    for name, rows in tables.items():
        grid = load_grid(name)
        assert all(row.seeds == tuple(range(2026, 2036)) for row in grid.rows.values())
        found = {
            row.name: tuple(
                row.published[method][0]["accuracy"] if method in row.published else None
                for method in ("cls", "re", "rekd")
            )
            for row in grid.rows.values()
        }
        assert found == rows
    assert {"digits", "planted", "gpu-table2", "small-table3"} <= set(shipped_grids())


@pytest.mark.parametrize("size", ["small", "gpu"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_smaller_tables_stand_beside_the_same_figures(size: str, number: int) -> None:
    paper, smaller = load_grid(f"paper-table{number}").rows, load_grid(f"{size}-table{number}").rows
    for name, row in paper.items():
        assert smaller[name].published == {line: row.published[line] for line in smaller[name].variants}


@pytest.mark.parametrize(
    ("given", "net", "whole"),
    [
        ({"backbone": "here"}, "cnn:here", "here"),
        ({"backbone": "random:bert-nano"}, "cnn:random:bert-nano", "random:bert-nano"),
        ({"backbone": "bilstm:here"}, "bilstm:here", "bilstm:here"),
        ({"backbone": "here", "net.backbone": "there"}, "there", "here"),
    ],
)
def test_a_backbone_for_all_rows_leaves_small_nets_what_they_are(
    given: dict[str, str], net: str, whole: str, write_grid: Callable[..., str]
) -> None:
    text = "recipe: planted\nmethods: [re]\nrows: {net: {backbone: 'cnn:some'}, whole: {backbone: 'random:bert-micro'}}"
    rows = load_grid(write_grid(text), given).rows
    found = tuple(rows[name].variants["re"].settings["backbone"] for name in ("net", "whole"))
    assert found == (net, whole)


@pytest.mark.parametrize("key", ["&rekd", "3", "true", "2020-01-01"])
def test_a_key_that_is_no_text_is_one_sentence(write_grid: Callable[..., str], key: str) -> None:
    with pytest.raises(InputError):
        load_grid(write_grid(f"recipe: planted\nrows:\n  student: {{methods: [cls], {key}: 1}}\n"))
    with pytest.raises(InputError):
        load_grid(write_grid(f"recipe: planted\nmethods: {{cls: {{}}, {key}: {{}}}}\nrows:\n  student: {{}}\n"))

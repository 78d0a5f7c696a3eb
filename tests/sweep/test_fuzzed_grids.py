"""Recipes and grids from a stranger: read, or refused in one sentence."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rekd_edge.errors import InputError
from rekd_edge.sweep.grid import load_grid
from rekd_edge.sweep.plan import expand
from rekd_edge.training.configuration import all_keys, load_config

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
EDGES = st.sampled_from(
    ["", "null", "re", "rekd", "a", "b", "1e9", 0, -1, 1, 2, 10**30, 0.5, True, None, [], {}, [1, 2]]
)
SIGNS = "{}[]:,-&*!|>'\"\n 0123456789.aeT"
VALUES = st.recursive(
    EDGES | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from([*all_keys(), "data", "plmr", "rtp", "ratio_descent", "unknown"])
SETTINGS = st.dictionaries(KEYS, VALUES, max_size=4)
METHODS = st.sampled_from(["cls", "re", "rekd", "plmr", "cls-kd", "control"])
ROW = st.fixed_dictionaries(
    {},
    optional={
        "methods": st.lists(METHODS, max_size=3) | st.dictionaries(METHODS, SETTINGS | VALUES, max_size=3) | VALUES,
        "teacher": st.sampled_from(["a", "b"]) | VALUES,
        "teacher_seed": st.sampled_from(["same", 1]) | VALUES,
        "tuned": st.sampled_from(["a", "b"]) | VALUES,
        "settings": SETTINGS | VALUES,
        "seeds": VALUES,
        "vary": st.dictionaries(KEYS, st.lists(VALUES, max_size=3), max_size=2) | VALUES,
        "tune": st.dictionaries(KEYS, st.lists(VALUES, max_size=3), max_size=2) | VALUES,
        "published": VALUES,
        "role": VALUES,
        "layers": VALUES,
    },
)
GRID = st.fixed_dictionaries(
    {"rows": st.dictionaries(st.sampled_from(["a", "b"]), ROW | VALUES, min_size=1) | VALUES},
    optional={
        "title": VALUES,
        "recipe": st.sampled_from(["planted"]) | VALUES,
        "seeds": VALUES,
        "methods": st.lists(METHODS, max_size=3) | VALUES,
        "settings": SETTINGS | VALUES,
        "base": VALUES,
    },
)


def read_or_refused(read: Any) -> None:
    try:
        read()
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


@QUICK
@given(document=SETTINGS | st.dictionaries(KEYS, SETTINGS, max_size=2) | VALUES)
def test_any_document_is_a_recipe_or_refused(document: Any, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    read_or_refused(lambda: load_config(tmp_path / "recipe.yaml", {}))


@QUICK
@given(content=st.binary(max_size=100) | st.text(alphabet=SIGNS, max_size=40).map(str.encode))
def test_any_bytes_are_a_recipe_and_a_grid_or_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_bytes(content)
    read_or_refused(lambda: load_config(tmp_path / "some.yaml", {}))
    read_or_refused(lambda: load_grid(str(tmp_path / "some.yaml")))


@QUICK
@given(key=KEYS, value=st.text(max_size=12) | st.text(alphabet="0123456789.-e:,", max_size=12), strict=st.booleans())
def test_any_set_is_a_setting_or_refused(key: str, value: str, strict: bool) -> None:
    with suppress(InputError):
        load_config(None, {key: value}, strict)


@QUICK
@given(document=GRID)
def test_any_document_is_a_grid_or_refused(document: Any, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(document))
    read_or_refused(lambda: expand(load_grid(str(tmp_path / "grid.yaml"))))


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"seeds": 10**9}, "seeds must be a whole number from 1 to 1000, not 1000000000"),
        ({"seeds": [2**32]}, "a seed must be a whole number from 0 to 4294967295"),
        ({"sedes": 2}, "Unknown key 'sedes' in the grid .*; did you mean seeds?"),
        ({"rows": {"a": {"vary": {"epochs": list(range(40)), "seed": [1], "batch_size": list(range(40))}}}}, "varies"),
        ({"rows": {"a": {"vary": {"epochs": [1] * 40, "batch_size": [1] * 40}}}}, "1600 combinations; take 1000"),
    ],
)
def test_sizes_of_a_grid_are_bounded(grid: dict[str, Any], words: str, tmp_path: Path) -> None:
    whole = {"recipe": "planted", "methods": ["cls"], "rows": {"a": {}}, **grid}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(whole))
    with pytest.raises(InputError, match=words):
        load_grid(str(tmp_path / "grid.yaml"))

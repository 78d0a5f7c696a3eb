"""By what a sweep knows its runs: a control that is trained otherwise makes another run of all that stand beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rekd_edge.sweep.grid import load_grid
from rekd_edge.sweep.perform import Resolver
from rekd_edge.sweep.plan import expand
from rekd_edge.training import control

TEXT = """\
recipe: planted
settings: {data.train_limit: 64, data.eval_limit: 32}
rows:
  shared: {methods: [cls, re], layers: 1}
  own: {methods: {plmr: {layers: 2, generator_layers: 1}}}
  alone: {methods: [re], layers: 1, settings: {control: null, warm_start: false}}
"""


def fingerprints(grid: str, folder: Path) -> dict[str, str]:
    """Run to fingerprint."""
    plan = expand(load_grid(grid))
    resolver = Resolver(plan, folder)
    return {name: resolved.fingerprint for name in plan if (resolved := resolver(name)) is not None}


def changed(write_grid: Callable[..., str], folder: Path, alter: Callable[[], None]) -> set[str]:
    """The runs that are others after a change."""
    before = fingerprints(write_grid(TEXT), folder)
    alter()
    after = fingerprints(write_grid(TEXT), folder)
    return {name for name in before if before[name] != after[name]}


def test_another_control_makes_another_run_of_all_that_stand_beside_it(
    write_grid: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_kind() -> None:
        monkeypatch.setattr(control, "KINDS", ("descent",))

    beside = {"shared-control-2026", "shared-re-2026", "own-plmr-2026"}
    assert changed(write_grid, tmp_path, one_kind) == beside


def test_a_grid_is_known_again(write_grid: Callable[..., str], tmp_path: Path) -> None:
    assert changed(write_grid, tmp_path, lambda: None) == set()

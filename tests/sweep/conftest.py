"""A sweep of seconds, and the module of calls, where other processes find it too: they take over this one's path."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

TINY = """\
title: planted reviews in tiny
source: nobody
recipe: planted
settings: {data.train_limit: 96, data.eval_limit: 48, data.max_length: 32, predictor_epochs: 1, learning_rate: 3.0e-3}
methods: [cls, re, rekd]
rows:
  teacher: {methods: [re], layers: 2, settings: {allow_weak_teacher: true}}
  student:
    layers: 1
    generator_layers: 1
    teacher: teacher
    settings: {allow_weak_teacher: true}
    published: {cls: {accuracy: 0.9, std: 0.01}, re: {accuracy: 0.8}, rekd: {accuracy: 0.85}}
"""


@pytest.fixture
def write_grid(tmp_path: Path) -> Callable[..., str]:
    """A grid file with this text."""

    def write(text: str, name: str = "grid") -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A grid of six runs on `builtin:planted`: teacher, CLS, RE and REKD student, and their two controls."""
    path = tmp_path_factory.mktemp("grids") / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture(scope="session")
def undisturbed(tiny: str, make_once: Callable[..., Path]) -> tuple[Path, dict[str, Any]]:
    """The folder and the document of that grid's sweep, one run after the other in one process."""
    from sweep_calls import sweep_here

    def write(folder: Path) -> None:
        document = sweep_here(tiny, folder / "sweep")
        (folder / "returned.json").write_text(json.dumps(document))

    folder = make_once("undisturbed", write)
    return folder / "sweep", json.loads((folder / "returned.json").read_text())


@pytest.fixture
def copied(undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """The undisturbed sweep's folder, to be changed."""
    return Path(shutil.copytree(undisturbed[0], tmp_path / "sweep"))

"""A release and a run and bundle that it made itself."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from release_calls import SHORT, TEXT, Release


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    """The release, with everything imported that training and export need."""
    release = Release()
    yield release
    release.close()


@pytest.fixture(scope="module")
def run(make_once: Callable[..., Path], release: Release) -> Path:
    return make_once(
        "adversarial/run", lambda folder: release("train", "--output", folder, "--method", "re", *TEXT, *SHORT)
    )


@pytest.fixture(scope="module")
def pristine(make_once: Callable[..., Path], release: Release, run: Path) -> Path:
    return make_once("adversarial/bundle", lambda folder: release("export", run, "--output", folder))


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A table of two rows, alone in its folder."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    folder = tmp_path / "texts"
    folder.mkdir()
    parquet.write_table(pa.table({"id": ["a", "b"], "text": ["good", "bad"]}), folder / "rows.parquet")
    return folder

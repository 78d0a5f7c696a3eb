"""Nothing outside the output folder is written or deleted, and nothing in it that is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from parquet_files import rows, write

from rekd_edge import InputError
from rekd_edge.bulk import predict_files
from rekd_edge.bulk.ranges import PURPOSE
from rekd_edge.engines import EngineSettings
from rekd_edge.files import claim_folder

ONE = EngineSettings(workers=1)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user's, with names like ours."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("thesis.tex", "1.tmp", f"{0:016x}.tmp", f"{0:016x}-0-3.parquet"):
        (folder / name).write_text("mine")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("place", [".rekd-edge", "deep", "deep/a.parquet"])
def test_link_out_of_the_output_is_refused(place: str, text_bundle: Path, mine: Path, tmp_path: Path) -> None:
    write(tmp_path / "in" / "deep" / "a.parquet", text=["a delight"])
    link = tmp_path / "out" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(mine / "thesis.tex" if place.endswith("parquet") else mine)
    before = contents(mine)
    with pytest.raises(InputError, match=rf"{place} is a link"):
        predict_files(text_bundle, tmp_path / "in", tmp_path / "out", ONE)
    assert contents(mine) == before
    assert link.is_symlink()


def test_folder_of_the_user_is_refused(text_bundle: Path, mine: Path, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", text=["a delight"])
    (tmp_path / "out").mkdir()
    mine = mine.rename(tmp_path / "out" / ".rekd-edge")
    before = contents(mine)
    with pytest.raises(InputError, match="files that rekd-edge did not put there"):
        predict_files(text_bundle, tmp_path / "in", tmp_path / "out", ONE)
    assert contents(mine) == before


def test_files_of_the_user_in_our_folder_stay(text_bundle: Path, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", text=["a delight"])
    staging = claim_folder(tmp_path / "out" / ".rekd-edge", PURPOSE)
    (staging / "thesis.tex").write_text("mine")
    (staging / "notes").mkdir()
    (staging / f"{0:016x}.tmp").write_text("ours")
    predict_files(text_bundle, tmp_path / "in", tmp_path / "out", ONE)
    assert rows(tmp_path / "out" / "a.parquet")[0]["error"] is None
    assert (staging / "thesis.tex").read_text() == "mine"
    assert (staging / "notes").is_dir()
    assert not (staging / f"{0:016x}.tmp").exists()

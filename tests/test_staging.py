"""A folder is written whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rekd_edge.errors import InputError
from rekd_edge.staging import check_output_folder, staged_folder


def test_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "bundle"
    with staged_folder(output) as staging:
        (staging / "file").write_text("content")
        assert not output.exists()
        assert staging.parent == output.parent  # the same file system, so that the rename is one step
    assert (output / "file").read_text() == "content"
    assert [path.name for path in output.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("error", [ValueError("no"), OSError(errno.ENOSPC, "no space left"), KeyboardInterrupt()])
def test_nothing_is_left_after_a_failure(error: BaseException, tmp_path: Path) -> None:
    output = tmp_path / "bundle"

    def write_half() -> None:
        with staged_folder(output) as staging:
            (staging / "half").write_text("content")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with staged_folder(tmp_path / "bundle") as staging:
        (staging / "file").write_text("content")
    assert (tmp_path / "bundle" / "file").exists()


def test_taken_path_is_refused_before_any_work(tmp_path: Path) -> None:
    full, file, link = tmp_path / "full", tmp_path / "file", tmp_path / "link"
    full.mkdir()
    (full / "mine").write_text("mine")
    file.write_text("mine")
    link.symlink_to(full)
    for path, words in [(full, "not empty"), (file, "is a file"), (link, "is a")]:
        with pytest.raises(InputError, match=words), staged_folder(path):
            pytest.fail("work was begun")
    assert (full / "mine").read_text() == file.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


def test_folder_is_readable_to_others(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "bundle"):
        pass
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o755


def test_free_path_is_accepted(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_output_folder(tmp_path / "empty")

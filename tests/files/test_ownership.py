"""Only what we made, and marked as ours, is deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from rekd_edge.errors import InputError
from rekd_edge.files import MARKER, claim_folder, is_ours, remove_ours


def test_own_folder_is_removed_and_what_its_links_point_to_is_not(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    folder = claim_folder(tmp_path / "work", "test")
    (folder / "below").mkdir()
    (folder / "below" / "file").write_text("ours")
    (folder / "link").symlink_to(mine)
    (folder / "below" / "link").symlink_to(mine / "file")
    assert remove_ours(folder, "test")
    assert not folder.exists()
    assert (mine / "file").read_text() == "mine"


def test_folder_of_the_user_is_neither_taken_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "file").write_text("mine")
    with pytest.raises(InputError, match="did not put there"):
        claim_folder(tmp_path / "work", "test")
    assert not remove_ours(tmp_path / "work", "test")
    assert (tmp_path / "work" / "file").read_text() == "mine"


def test_link_to_a_folder_of_ours_is_neither_taken_nor_removed(tmp_path: Path) -> None:
    ours = claim_folder(tmp_path / "ours", "test")
    (tmp_path / "work").symlink_to(ours)
    with pytest.raises(InputError, match="link"):
        claim_folder(tmp_path / "work", "test")
    assert not remove_ours(tmp_path / "work", "test")
    assert is_ours(ours, "test")


@pytest.mark.parametrize("content", ["", "{}", "[" * 5000, '{"made by": "rekd-edge", "for": "another"}'])
def test_marker_of_something_else_does_not_count(content: str, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / MARKER).write_text(content)
    assert not is_ours(tmp_path / "work", "test")
    assert not remove_ours(tmp_path / "work", "test")


def test_own_folder_is_taken_again(tmp_path: Path) -> None:
    folder = claim_folder(tmp_path / "work", "test")
    (folder / "file").write_text("ours")
    assert claim_folder(folder, "test") == folder
    with pytest.raises(InputError):
        claim_folder(folder, "another purpose")

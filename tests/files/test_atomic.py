"""A file is written whole or not at all, under a name that nobody can lay a link at."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from rekd_edge.errors import InputError
from rekd_edge.files import create_file, inside, read_json, real_folder, replacing, write_json, write_text


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, {"a": float("nan")})

    def fail() -> None:
        with replacing(file) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert json.loads(file.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_temporary_names_differ_each_time(tmp_path: Path) -> None:
    names = set()
    for _ in range(20):
        with replacing(tmp_path / "a") as unfinished:
            names.add(unfinished.name)
            assert unfinished.parent == tmp_path
    assert len(names) == 20


def test_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    mine, link = tmp_path / "mine", tmp_path / "link"
    mine.write_text("mine")
    link.symlink_to(mine)
    write_text(link, "new")
    assert mine.read_text() == "mine"
    assert not link.is_symlink()
    assert link.read_text() == "new"

    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "dangling")
    assert not (tmp_path / "elsewhere").exists()


def test_content_is_on_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, replace = os.fsync, os.replace

    def record_sync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def record_replace(source: Path, target: Path) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_replace)
    write_text(tmp_path / "a", "text")
    assert events == ["file", "rename", "folder"]


def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_damaged_document_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "", ".", "link/a", "link"])
def test_name_that_leads_out_of_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(InputError):
        inside(folder, name)
    assert inside(folder, "onnx/model.onnx") == folder / "onnx" / "model.onnx"


def test_folder_must_be_a_real_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    for name in ("link", "file", "file/below"):
        with pytest.raises(InputError):
            real_folder(tmp_path / name)
    assert real_folder(tmp_path / "a" / "b").is_dir()

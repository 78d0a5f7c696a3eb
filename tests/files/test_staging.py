"""A folder is written whole or not at all."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rekd_edge.errors import InputError
from rekd_edge.files import MARKER, built_in_place, check_output_folder, staged_folder

PARTS = ("half", "whole")


def test_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "bundle"
    with staged_folder(output) as staging:
        (staging / "file").write_text("content")
        assert not output.exists()
        assert staging.parent.parent == output.parent  # the same file system, so that the rename is one step
        assert list(staging.iterdir()) == [staging / "file"]
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


def test_next_call_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    kill = "import os, signal, sys\nfrom pathlib import Path\nfrom rekd_edge.files import staged_folder\n"
    kill += "with staged_folder(Path(sys.argv[1])) as staging:\n    (staging / 'half').write_text('half')\n"
    kill += "    os.kill(os.getpid(), signal.SIGKILL)\n"
    for name in ("bundle", "bundle.b"):  # the second's staging must not be taken for the first's
        subprocess.run([sys.executable, "-c", kill, str(tmp_path / name)], check=False)
    mine = tmp_path / ".bundle.mine"
    mine.mkdir()
    assert len(list(tmp_path.glob(".bundle*/*/half"))) == 2

    with staged_folder(tmp_path / "bundle"):
        pass
    assert mine.is_dir()
    assert [path.parent.parent.name[:10] for path in tmp_path.glob(".bundle*/*/half")] == [".bundle.b."]
    with staged_folder(tmp_path / "bundle.b"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bundle.mine", "bundle", "bundle.b"]


def test_output_of_two_calls_is_of_the_first(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "bundle") as staging:
        (staging / "file").write_text("first")
        refused = []

        def second() -> None:
            with pytest.raises(InputError, match="writes to"), staged_folder(tmp_path / "bundle"):
                pass
            refused.append(True)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert refused == [True]
    assert (tmp_path / "bundle" / "file").read_text() == "first"


def test_folder_built_in_place_vanishes_on_failure_and_after_a_kill(tmp_path: Path) -> None:
    def fail() -> None:
        with built_in_place(tmp_path / "demo", PARTS) as folder:
            (folder / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []

    kill = "import os, signal, sys\nfrom pathlib import Path\nfrom rekd_edge.files import MARKER, built_in_place\n"
    kill += "with built_in_place(Path(sys.argv[1]), ['half']) as folder:\n    (folder / 'half').write_text('half')\n"
    kill += "    os.kill(os.getpid(), signal.SIGKILL)\n"
    subprocess.run([sys.executable, "-c", kill, str(tmp_path / "demo")], check=False)
    assert (tmp_path / "demo" / "half").is_file()
    (tmp_path / "demo" / "mine").write_text("mine")
    with pytest.raises(InputError, match="not empty"), built_in_place(tmp_path / "demo", PARTS):
        pass
    assert [path.name for path in (tmp_path / "demo").iterdir() if path.name != MARKER] == ["mine"]
    (tmp_path / "demo" / "mine").unlink()
    with built_in_place(tmp_path / "demo", PARTS) as folder:
        (folder / "whole").write_text("whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["demo", "whole"]

    with pytest.raises(InputError, match="not empty"), built_in_place(tmp_path / "demo", PARTS):
        pass
    assert (tmp_path / "demo" / "whole").is_file()


def test_folder_that_was_killed_before_it_was_marked_is_removed(tmp_path: Path) -> None:
    empty, begun, full = (tmp_path / f".bundle.{number:016x}" for number in range(3))
    for folder in (empty, begun, full):
        folder.mkdir()
    (begun / MARKER).touch()
    (full / "mine").write_text("mine")
    with staged_folder(tmp_path / "bundle"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [full.name, "bundle"]
    assert (full / "mine").read_text() == "mine"

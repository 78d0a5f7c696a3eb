"""A sealed folder tells any change."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rekd_edge.files import DIGESTS, verify_digests, write_digests


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / "below").mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(range(256)))
    (folder / "below" / "a file").write_text("text")
    write_digests(folder)
    return folder


def test_untouched_folder_verifies(sealed: Path) -> None:
    assert verify_digests(sealed) is None


def test_any_changed_bit_is_found(sealed: Path) -> None:
    for name in ("weights", "below/a file", DIGESTS):
        content = (sealed / name).read_bytes()
        for place in range(0, len(content), 7):
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            (sealed / name).write_bytes(changed)
            assert verify_digests(sealed) is not None, (name, place)
        (sealed / name).write_bytes(content[:-1])
        assert verify_digests(sealed) is not None, f"{name} cut short"
        (sealed / name).write_bytes(content)
    assert verify_digests(sealed) is None


def test_missing_added_and_linked_files_are_named(sealed: Path, tmp_path: Path) -> None:
    (sealed / "weights").rename(tmp_path / "weights")
    assert verify_digests(sealed) == "lacks weights"
    (sealed / "weights").symlink_to(tmp_path / "weights")
    assert verify_digests(sealed) == "has a damaged weights"
    (sealed / "weights").unlink()
    shutil.copy(tmp_path / "weights", sealed / "weights")
    (sealed / "more").write_text("")
    assert verify_digests(sealed) == f"holds more, which its {DIGESTS} does not list"
    (sealed / "more").unlink()
    (sealed / DIGESTS).unlink()
    assert verify_digests(sealed) == f"has no {DIGESTS}"


def test_folder_with_a_link_is_not_sealed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="link"):
        write_digests(tmp_path / "a")


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_standard_tool_reads_the_list(sealed: Path) -> None:
    def check() -> int:
        return subprocess.run(["sha256sum", "-c", DIGESTS], cwd=sealed, capture_output=True, check=False).returncode

    assert check() == 0
    (sealed / "weights").write_bytes(b"")
    assert check() != 0

"""Closed and full streams, odd terminals, locales and lines: the right exit status, and one sentence at most."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MAIN = [sys.executable, "-c", "from rekd_edge.cli import main; main()"]


def shell(redirection: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`rekd-edge ARGUMENTS` under a shell that redirects or closes its streams."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *MAIN, *map(str, arguments)],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def test_a_closed_standard_error_changes_no_exit_status(text_bundle: Path) -> None:
    done = shell("2>&-", "predict", text_bundle, "a good film", "--json")
    assert (done.returncode, json.loads(done.stdout)["label"]) == (0, "positive")
    assert shell("2>&-", "inspect", text_bundle / "nowhere").returncode == 2
    assert shell("2>&-", "--version").stdout.strip()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_error_changes_no_exit_status(text_bundle: Path) -> None:
    assert shell("2>/dev/full", "inspect", text_bundle / "nowhere").returncode == 2
    assert shell("2>/dev/full", "predict", text_bundle, "good").returncode == 0


def test_a_closed_standard_output_is_a_silent_one(text_bundle: Path) -> None:
    for arguments in (["predict", text_bundle, "good"], ["inspect", text_bundle], ["--version"]):
        done = shell(">&-", *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
    done = shell(">&- 2>&- <&-", "predict", text_bundle, "good")
    assert done.returncode == 0


def test_a_width_of_no_columns_hides_nothing(text_bundle: Path) -> None:
    done = shell("", "predict", text_bundle, "a good film", COLUMNS="0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"positive" in done.stdout
    assert b"rationale: good" in done.stdout


def test_a_c_locale_reads_and_writes(text_bundle: Path) -> None:
    locale = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [*MAIN, "predict", str(text_bundle), "-", "--json"],
        input="סרט טוב\n".encode(),
        capture_output=True,
        env={**os.environ, **locale},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["rationale"] == [{"start": 4, "end": 7, "text": "טוב"}]


def ask(bundle: Path, stdin: bytes) -> list[dict[str, Any]]:
    done = subprocess.run([*MAIN, "predict", str(bundle), "-", "--json"], input=stdin, capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_byte_order_mark_shifts_no_span(text_bundle: Path) -> None:
    plain = ask(text_bundle, b"a good film\n")
    assert plain[0]["rationale"] == [{"start": 2, "end": 6, "text": "good"}]
    assert ask(text_bundle, b"\xef\xbb\xbfa good film\n") == plain
    later = ask(text_bundle, b"bad\n\xef\xbb\xbfa good film\n")[1]  # there it is a character of the text
    assert later["rationale"] == [{"start": 3, "end": 7, "text": "good"}]


def test_a_line_longer_than_any_text_is_one_sentence(text_bundle: Path) -> None:
    longest = 2**24
    done = subprocess.run(
        [*MAIN, "predict", str(text_bundle), "-", "--json"],
        input=b"good\n" + b"a" * (longest + 1) + b"\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == b"rekd-edge: Line 2 of standard input has more than 16777216 bytes; give it in parts.\n"

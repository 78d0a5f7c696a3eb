"""The command prints the table, lists grids and runs, and refuses what it cannot do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from sweep_calls import run_of

from rekd_edge import cli
from rekd_edge.sweep.grid import load_grid
from rekd_edge.sweep.plan import expand


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["rekd-edge", "sweep", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_command_prints_the_table(
    tiny: str, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, tiny, "--output", copied, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "rekd-edge sweep tiny.yaml"
    assert document == json.loads((copied / "table.json").read_text())
    assert str(copied.parent) not in json.dumps(document)
    assert call(monkeypatch, tiny, "--output", copied) == 0
    assert "REKD" in capsys.readouterr().out


def test_command_fails_where_a_run_failed(
    tiny: str, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student = run_of(copied, "student-re-2026")
    (student / "result.json").unlink()
    (student / "error.json").write_text(json.dumps({"error": "It broke."}))
    assert call(monkeypatch, tiny, "--output", copied, "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["failed"] == [{"run": "student-re-2026", "error": "It broke."}]
    assert "1 of 6 runs failed (student-re-2026)" in captured.err.splitlines()[-1]
    assert "--retry" in captured.err.splitlines()[-1]


def test_command_lists_grids_and_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:3] == ["paper-table1", "110", "runs"] for line in lines)
    assert call(monkeypatch, "digits", "--dry-run", "--seeds", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(expand(load_grid("digits", seeds=1)))
    assert "needs teacher-re-2026, student-control-2026" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "--list shows"),
        (("digits",), "--output"),
        (("no-grid", "--output", "x"), "There is no grid no-grid"),
        (("digits", "--output", "x", "--address", "host:1"), "--engine ray"),
        (("digits", "--output", "x", "--set", "seed=1"), "--seeds"),
    ],
)
def test_command_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], word: str
) -> None:
    assert call(monkeypatch, *arguments) == 2
    assert word in capsys.readouterr().err

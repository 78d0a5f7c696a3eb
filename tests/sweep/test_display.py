"""What a sweep says of its runs: from their progress files, with a time left that follows from the work done."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from rekd_edge.sweep.display import Board


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """Ten units of work in three runs, beside two that are finished; a hundred seconds have passed."""
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    board = Board({"a": 4.0, "b": 4.0, "c": 2.0}, finished=2, failed=0)
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    for name in "ab":
        (tmp_path / name).mkdir()
        board.started(name, tmp_path / name)
    return board


def test_time_left_follows_from_the_work_done(board: Board, tmp_path: Path) -> None:
    assert board.seconds_left(board.states()) is None
    progress = {"pid": 1, "stage": "re", "step": 50, "steps": 200, "epoch": 2, "epochs": 8}
    (tmp_path / "b" / "progress.json").write_text(json.dumps(progress))
    board.ended("a", None, "accuracy 0.9")
    # 4 + 4 / 4 units in 100 s, 5 are left
    assert board.seconds_left(board.states()) == pytest.approx(100.0)
    assert board.line() == "3 of 5 runs done, about 2 min left: b re epoch 2/8"


def test_failures_are_counted_and_told(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    board.ended("a", "It broke.")
    assert "3/5 a: failed: It broke." in capsys.readouterr().err
    console = Console(width=100)
    with console.capture() as shown:
        console.print(board.render())
    assert "b" in shown.get()
    assert "2 of 5 runs done, 1 failed" in shown.get()


@pytest.mark.parametrize(("name", "word"), [(None, "starting"), ("result.json", "ending"), ("error.json", "ending")])
def test_runs_without_progress(board: Board, tmp_path: Path, name: str | None, word: str) -> None:
    if name:
        (tmp_path / "a" / name).write_text("{}")
    assert f"a {word}" in board.line()

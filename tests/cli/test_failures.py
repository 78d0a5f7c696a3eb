"""A failure or an interruption is one sentence with its status, and leaves nothing half-written."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_calls import QUICK, Outcome, assert_fails, train_arguments

from rekd_edge import cli


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "no space left"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 1, "Permission denied: /root/x"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, 'pip install "rekd-edge[all]"'),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (ValueError("two\nlines"), 1, "ValueError: two lines (set REKD_EDGE_TRACEBACK=1"),
    ],
)
def test_a_failure_is_one_sentence_and_leaves_nothing(
    run: Callable[..., Outcome],
    make_run: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    words: str,
) -> None:
    import rekd_edge.export.stages

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(rekd_edge.export.stages, "write_manifest", fail)
    assert_fails(run("export", make_run("image"), "--output", tmp_path / "bundle"), status, words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_failed_check_is_one_sentence_and_leaves_nothing(
    run: Callable[..., Outcome], make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rekd_edge.export.stages

    monkeypatch.setattr(rekd_edge.export.stages, "LOGIT_TOLERANCE", -1.0)
    arguments = ["export", make_run("image"), "--output", tmp_path / "bundle"]
    assert_fails(run(*arguments), 1, "failed its check", "Nothing was written")
    assert list(tmp_path.iterdir()) == []
    forced = run(*arguments, "--force", "--json")
    assert forced.status == 0
    assert forced.document["verified"] is False


def test_an_interrupted_sweep_says_how_it_goes_on(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rekd_edge.sweep.run

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rekd_edge.sweep.run, "run_sweep", interrupt)
    assert_fails(run("sweep", "planted", "--output", tmp_path), 130, "Interrupted; the same command goes on.")


def test_an_interrupted_training_can_be_resumed(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rekd_edge.training.run

    write = rekd_edge.training.run._write

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    arguments = train_arguments(tmp_path / "run", "--data", "builtin:planted", settings=[*QUICK, "control=null"])
    monkeypatch.setattr(rekd_edge.training.run, "_write", interrupt)
    assert_fails(run(*arguments), 130, "Interrupted; the same command with --resume goes on.")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]
    assert_fails(run("export", tmp_path / "run", "--output", tmp_path / "bundle"), 2, "not a finished run")
    monkeypatch.setattr(rekd_edge.training.run, "_write", write)
    assert run(*arguments, "--resume").status == 0
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_traceback_is_shown_on_demand(run: Callable[..., Outcome], int8_bundle: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("REKD_EDGE_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["rekd-edge", "predict", str(int8_bundle), "good"])
    monkeypatch.setattr("rekd_edge.cli.predict.show_prediction", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main()

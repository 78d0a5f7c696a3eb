"""Arguments of commands, data for them, and how a command ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUICK = ["data.train_limit=40", "data.eval_limit=20", "data.max_length=32", "epochs=1", "batch_size=20"]


@dataclass
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


def train_arguments(output: Path, *more: str | Path, method: str = "cls", settings: list[str] = QUICK) -> list[Any]:
    given = [word for setting in settings for word in ("--set", setting)]
    return ["train", "--method", method, "--backbone", "random:bert-nano", "--layers", "1", "--output", output,
            *given, *more]  # fmt: skip


def assert_fails(outcome: Outcome, status: int, *words: str) -> None:
    """The status, nothing on standard output, and one sentence of ours as the only or last line on standard error."""
    assert outcome.status == status, outcome.err
    assert outcome.out == ""
    *before, last = outcome.err.splitlines()
    assert last.startswith("rekd-edge: ")
    assert not any(line.startswith("rekd-edge: ") for line in before)
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in last


def table(folder: Path, **splits: list[str]) -> Path:
    """A folder of CSV files with a row for every given label."""
    folder.mkdir()
    for name, labels in splits.items():
        rows = [f"film {number},{label}\n" for number, label in enumerate(labels)]
        (folder / f"{name}.csv").write_text("text,label\n" + "".join(rows))
    return folder

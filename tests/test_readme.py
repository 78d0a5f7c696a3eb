"""README's commands and Python, as they stand and in their order, in a folder with the data that they name."""

from __future__ import annotations

import csv
import json
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from textwrap import dedent

import pytest

from rekd_edge import cli

README = Path(__file__).parents[1] / "README.md"
SET_UP = ("python3 -m venv", ". .venv", "pip install", "pytest")
"""What `.ci/run` does before this test: an environment, and the tests themselves."""
SLOW = ("rekd-edge demo",)
SHELL = {*(words.split()[0] for words in SET_UP), "rekd-edge"}
NO_CODE = {"mermaid", "text", "json", "yaml"}


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The language and the code of each block: "shell", "python", what a fence says, or "" for indented output."""
    fenced: str | None = None
    code: list[str] = []

    for line in [*text.splitlines(), ""]:
        if line.startswith("```"):
            if fenced is not None:
                yield {"sh": "shell", "bash": "shell", "console": "shell"}.get(fenced, fenced), "\n".join(code)
            fenced, code = None if fenced is not None else line.removeprefix("```").strip(), []
        elif fenced is not None or line.startswith("    ") or (code and not line):
            code.append(line)
        elif code:
            yield _indented(code)
            code = []


def _indented(lines: list[str]) -> tuple[str, str]:
    code = dedent("\n".join(lines)).strip()
    first = code.split()[0]

    return "shell" if first in SHELL else "python" if first in ("from", "import") else "", code


def commands(code: str) -> Iterator[list[str]]:
    """The commands of a shell block, each as its words."""
    for line in code.replace("\\\n", " ").splitlines():
        for chained, words in groupby(shlex.split(line, comments=True), key=lambda word: word == "&&"):
            if not chained:
                yield list(words)


BLOCKS = list(blocks(README.read_text(encoding="utf-8")))
COMMANDS = [command for language, code in BLOCKS if language == "shell" for command in commands(code)]


def begins(command: list[str], *beginnings: str) -> bool:
    return " ".join(command).startswith(beginnings)


def write_reviews(path: Path) -> None:
    """Short reviews that a tenth of their words decides: what the recipe selects, and a run of seconds finds."""
    choose = random.Random(0)
    filler = ["the", "film", "story", "scene", "actor", "light", "music", "plot", "again", "today", "here", "there"]
    cues = {"good": ["superb", "delightful"], "bad": ["tedious", "dreadful"]}

    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for label in ("good", "bad") * 400:
            words = choose.choices(filler, k=20)
            for place in choose.sample(range(20), 2):
                words[place] = choose.choice(cues[label])
            rows.writerow([" ".join(words), label])


def write_backbone(folder: Path) -> None:
    """A folder of the hub name's own name, which goes before the hub: a tiny BERT with random weights."""
    geometry = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "bert", **geometry, **dropout, "initializer_range": 0.2}
    (folder / "config.json").write_text(json.dumps(config))


def prepare(folder: Path) -> None:
    """Write the data and the backbones that README's commands name."""
    for command in COMMANDS:
        for flag, value in pairwise(command):
            if flag == "--data" and not value.startswith("builtin:"):
                assert value.endswith(".csv"), f"prepare {value} here"
                write_reviews(folder / value)
            if flag == "--backbone" and not value.startswith("random:"):
                write_backbone(folder / value)


def test_every_command_of_the_readme_is_known() -> None:
    assert {language for language, _ in BLOCKS} <= {"shell", "python", "", *NO_CODE}
    assert {"shell", "python"} <= {language for language, _ in BLOCKS}
    assert [command for command in COMMANDS if command[0] != "rekd-edge" and not begins(command, *SET_UP)] == []


@pytest.mark.slow
def test_commands_and_python_of_the_readme_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, str(README), "exec"), {})
            assert capsys.readouterr().out.strip(), code
        for command in commands(code) if language == "shell" else ():
            if begins(command, *SET_UP, *SLOW):
                continue
            monkeypatch.setattr(sys, "argv", command)
            with pytest.raises(SystemExit) as end:
                cli.main()
            captured = capsys.readouterr()
            assert end.value.code == 0, captured.err
            assert captured.out.strip(), command


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if begins(command, *SLOW)], ids=" ".join)
def test_slow_commands_of_the_readme_run_as_they_stand(command: list[str], tmp_path: Path) -> None:
    source = os.pathsep.join(filter(None, [str(README.parent), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "rekd_edge", *command[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip()

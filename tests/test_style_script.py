"""The script of CONTRIBUTING's style table, against a module that was counted by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / ".ci" / "style.py"
MODULE = '''"""A module."""


def first(a, b, *, c):
    """Docstring,

    which is not counted as body."""
    one = a

    def inner(x, y, z, w, v):
        return x

    return one + b + c + inner(1, 2, 3, 4, 5)


class Public:
    def method(self, a):
        return a

    def _private(self):
        return None
'''


def test_counts(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "module.py").write_text(MODULE)
    (project / "test_module.py").write_text("def long(a, b, c, d, e):\n" + "    a = 1\n" * 100)
    ours = subprocess.run([sys.executable, SCRIPT, f"ours={project}"], capture_output=True, text=True, check=True)

    # bodies: 6 lines of `first` (2 blank), 1 of each method
    assert ours.stdout.splitlines() == [
        "| | ours |",
        "|:--|--:|",
        "| blank lines within function bodies | 25.0 % |",
        "| longest function, lines | 10 (`first`) |",
        "| longest file, lines | 21 (`project/module.py`) |",
        "| most parameters outside the command line | 3 (`first`) |",
        "| public names with a docstring | 33 % |",
    ]
    assert ours.stderr.splitlines() == [
        "project/module.py: Public: no docstring",
        "project/module.py: Public.method: no docstring",
    ]


def test_what_is_beyond_an_aim_is_listed(tmp_path: Path) -> None:
    long = "def long(a, b, c, d, e, f, g, h, i):\n" + "    a = 1\n" * 60
    (tmp_path / "module.py").write_text(long)
    ours = subprocess.run([sys.executable, SCRIPT, f"ours={tmp_path}"], capture_output=True, text=True, check=True)

    place = f"{tmp_path.name}/module.py: long"
    assert ours.stderr.splitlines() == [f"{place}: function 61", f"{place}: parameters 9", f"{place}: no docstring"]

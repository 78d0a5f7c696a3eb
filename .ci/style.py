"""Print the style table of CONTRIBUTING, and on standard error what is beyond its aims in the first project.

    python .ci/style.py "REKD Edge=rekd_edge,export" model2vec=../model2vec/model2vec nanoGPT=../nanoGPT

Each argument is NAME=FOLDER or NAME=FOLDER,FOLDER,…; tests are left out. A function's length includes its docstring;
its body, of which the blank lines are counted, does not.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.ClassDef | Function
COMMAND_LINE = {"cli", "cli.py", "commands", "command"}
"""Files and folders whose functions have a parameter for each flag."""


AIMS = {"function": 60, "file": 450, "parameters": 8}


@dataclass
class Style:
    """What is measured over the files of one project: sizes by the name of what has them."""

    body_lines: int = 0
    blank_lines: int = 0
    function: dict[str, int] = field(default_factory=dict)
    file: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    documented: dict[str, bool] = field(default_factory=dict)

    def rows(self) -> dict[str, str]:
        """The cell of each row of the table."""
        return {
            "blank lines within function bodies": f"{100 * self.blank_lines / max(1, self.body_lines):.1f} %",
            "longest function, lines": _largest(self.function),
            "longest file, lines": _largest(self.file),
            "most parameters outside the command line": _largest(self.parameters),
            "public names with a docstring": f"{100 * sum(self.documented.values()) / len(self.documented):.0f} %",
        }

    def beyond(self) -> Iterator[str]:
        """What is larger than its aim, and public names without a docstring."""
        for what, aim in AIMS.items():
            for name, value in sorted(getattr(self, what).items(), key=lambda item: -item[1]):
                if value > aim:
                    yield f"{name}: {what} {value}"

        yield from (f"{name}: no docstring" for name, documented in self.documented.items() if not documented)


def _largest(sizes: dict[str, int]) -> str:
    name, value = max(sizes.items(), key=lambda item: item[1])
    return f"{value} (`{name.rpartition(': ')[2]}`)"


def measure(folders: list[Path]) -> Style:
    """Read all Python files below `folders`."""
    style = Style()

    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).parts
            if any(part.startswith("test") or part == "conftest.py" for part in parts[1:]):
                continue

            text = path.read_text(encoding="utf-8")
            style.file["/".join(parts)] = len(text.splitlines())
            _measure_module(ast.parse(text), text.splitlines(), "/".join(parts), style)

    return style


def _measure_module(module: ast.Module, lines: list[str], file: str, style: Style) -> None:
    for function, name in outermost_functions(module):
        first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0].lineno
        body = lines[first - 1 : function.end_lineno]
        style.body_lines += len(body)
        style.blank_lines += sum(not line.strip() for line in body)

        style.function[f"{file}: {name}"] = (function.end_lineno or 0) - function.lineno + 1
        if COMMAND_LINE.isdisjoint(file.split("/")):
            style.parameters[f"{file}: {name}"] = parameter_count(function)

    for node, name in public_definitions(module):
        style.documented[f"{file}: {name}"] = ast.get_docstring(node) is not None


def outermost_functions(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[Function, str]]:
    """Functions and methods, but not those defined within another; each with its dotted name."""
    for node in tree.body:
        if isinstance(node, Function):
            yield node, f"{prefix}{node.name}"
        elif isinstance(node, ast.ClassDef):
            yield from outermost_functions(node, f"{prefix}{node.name}.")


def public_definitions(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[Definition, str]]:
    """Classes, functions and methods whose names do not begin with an underscore, and neither do their classes'."""
    for node in tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        yield node, f"{prefix}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node, f"{prefix}{node.name}.")


def parameter_count(function: Function) -> int:
    """Parameters of a function, without `self` and `cls`."""
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def main() -> None:
    """Measure the projects that the command line names."""
    projects = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if not projects:
        sys.exit(__doc__)

    styles = {name: measure([Path(folder) for folder in given.split(",")]) for name, given in projects.items()}
    columns = [style.rows() for style in styles.values()]

    print("| |", " | ".join(styles), "|")
    print("|:--|" + "--:|" * len(styles))
    for label in columns[0]:
        print(f"| {label} |", " | ".join(column[label] for column in columns), "|")

    print(*next(iter(styles.values())).beyond(), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()

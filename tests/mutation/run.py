"""Mutation testing of losses, objectives, selection, calibration and annealing with cosmic-ray's operators.

    python tests/mutation/run.py [--module PATH]... [--count] [--results FILE]

cosmic-ray would start a Python for every mutant, of which most of the time goes into importing torch. Here one process
imports what is not ours and forks for every mutant; the child imports the package with one module replaced, and runs
that module's tests. Files are never changed.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.machinery
import json
import os
import re
import signal
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cosmic_ray.ast
import cosmic_ray.mutating
import cosmic_ray.plugins
import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("mutants.toml")
RESULTS = Path(__file__).with_name("results.json")
EXAMPLES = 50
"""Examples that hypothesis draws in a test, always the same ones."""


@dataclass(frozen=True)
class Mutant:
    """One change to one module."""

    module: str
    operator: str
    occurrence: int
    line: int
    column: int


class Profile:
    """Gives hypothesis its profile once the tests' conftest has set its own."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        from hypothesis import settings

        settings.register_profile("mutation", max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
        settings.load_profile("mutation")


class Replaced(importlib.machinery.SourceFileLoader):
    """Loads a module from its file, or from a mutated source."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> Any:
        return compile(self.source, self.path, "exec")


class Finder:
    """Finds the mutated module before the import system finds its file."""

    def __init__(self, path: Path, source: str) -> None:
        parts = path.with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.path, self.source = str(ROOT / path), source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        spec = importlib.machinery.ModuleSpec(
            name, Replaced(name, self.path, self.source), origin=self.path, is_package=self.is_package
        )
        spec.has_location = True
        if self.is_package:
            spec.submodule_search_locations = [str(Path(self.path).parent)]
        return spec


def skipped_lines(source: str, functions: list[str]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where nothing is mutated: annotations, asserts, messages, range checks, and whole functions."""
    spans: list[ast.AST] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            spans += [node] if node.name in functions else [node.returns] if node.returns else []
        elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            spans.append(node.annotation)
        elif isinstance(node, ast.Raise | ast.Assert):
            spans.append(node)
        elif isinstance(node, ast.If) and (
            isinstance(node.body[-1], ast.Raise) or getattr(node.test, "id", "") == "TYPE_CHECKING"
        ):
            spans.append(node.test)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id[:2] == "__":
            spans.append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript) and "Callable" in ast.unparse(node):
            spans.append(node)  # a type alias
    return [((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)) for node in spans]  # type: ignore[attr-defined]


def mutants_of(path: Path, config: dict[str, Any]) -> Iterator[Mutant]:
    """Every mutant of a module that the configuration asks for."""
    source = (ROOT / path).read_text(encoding="utf-8")
    spans = skipped_lines(source, config["excluded_functions"])
    wanted = re.compile("|".join(f"core/({pattern})" for pattern in config["operators"]))
    tree = cosmic_ray.ast.get_ast(source)
    for name in sorted(filter(wanted.fullmatch, cosmic_ray.plugins.operator_names())):
        operator, occurrence = cosmic_ray.plugins.get_operator(name)(), 0
        for node in cosmic_ray.ast.ast_nodes(tree):
            for start, _ in operator.mutation_positions(node):
                if not any(begin <= start < end for begin, end in spans):
                    yield Mutant(str(path), name.removeprefix("core/"), occurrence, *start)
                occurrence += 1


def mutated(mutant: Mutant) -> str:
    """The module's source with the change."""
    source = (ROOT / mutant.module).read_text(encoding="utf-8")
    operator = cosmic_ray.plugins.get_operator(f"core/{mutant.operator}")()
    changed = cosmic_ray.mutating.mutate_code(source, operator, mutant.occurrence)
    assert changed is not None, mutant
    return str(changed)


def run_tests(source: str | None, mutant: Mutant | None, tests: list[str], timeout: float) -> str:
    """Run tests in a fork: `passed`, `failed` or `timeout`."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        if source is not None and mutant is not None:
            sys.meta_path.insert(0, Finder(Path(mutant.module), source))
        code = pytest.main(
            ["-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=--import-mode=importlib", *tests],
            plugins=[Profile()],
        )
        os._exit(int(code))

    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "passed" if os.waitstatus_to_exitcode(status) == 0 else "failed"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def import_what_is_not_ours() -> None:
    """Import everything heavy that tests need besides the package."""
    for name in ("accelerate", "datasets", "hypothesis.extra.numpy", "onnxruntime", "sklearn.metrics", "transformers"):
        importlib.import_module(name)
    transformers = sys.modules["transformers"]
    for name in ("Trainer", "AutoModel", "AutoTokenizer"):
        getattr(transformers, name)  # imported when asked for
    importlib.import_module("torch").set_num_threads(1)


def main() -> None:
    """Run every mutant, print the survivors and the score, and write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", action="append", help="this module alone; may be given several times")
    parser.add_argument("--count", action="store_true", help="say how many mutants there are, and run none")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))

    config = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    files = [
        file
        for name in config["modules"]
        for file in sorted(Path(name).glob("*.py") if Path(name).is_dir() else [Path(name)])
    ]
    files = [file for file in files if not given.module or str(file) in given.module]
    mutants = {file: list(mutants_of(file, config)) for file in files}
    if given.count:
        for file, each in mutants.items():
            print(f"{len(each):5} {file}")
        print(f"{sum(map(len, mutants.values())):5} in all")
        return

    import_what_is_not_ours()
    results: list[dict[str, Any]] = []
    for file, each in mutants.items():
        tests = config["tests"][str(file)]
        if (clean := run_tests(None, None, tests, 600)) != "passed":
            sys.exit(f"{file}: its tests {clean} without any mutation")
        for mutant in each:
            outcome = run_tests(mutated(mutant), mutant, tests, config["timeout"])
            results.append({**asdict(mutant), "outcome": "survived" if outcome == "passed" else "killed"})
            if outcome == "passed":
                print(
                    f"survived: {file}:{mutant.line}:{mutant.column} {mutant.operator} #{mutant.occurrence}", flush=True
                )
        print(summary(str(file), [row for row in results if row["module"] == str(file)]), flush=True)
        if not given.module:
            write(given.results, results)
    print(summary("all", results))


def summary(name: str, rows: list[dict[str, Any]]) -> str:
    """One line of a score."""
    killed = sum(row["outcome"] == "killed" for row in rows)
    return f"{name}: {killed} of {len(rows)} killed, {killed / max(len(rows), 1):.1%}"


def write(path: Path, results: list[dict[str, Any]]) -> None:
    """The counts of each module, and every survivor."""
    modules = {
        name: {
            "mutants": sum(row["module"] == name for row in results),
            "killed": sum(row["module"] == name and row["outcome"] == "killed" for row in results),
        }
        for name in dict.fromkeys(row["module"] for row in results)
    }
    survivors = [
        {key: row[key] for key in asdict(Mutant("", "", 0, 0, 0))} for row in results if row["outcome"] == "survived"
    ]
    path.write_text(json.dumps({"modules": modules, "survivors": survivors}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

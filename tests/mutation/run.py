"""Mutation testing of losses, objectives, selection, calibration and annealing with cosmic-ray's operators.

    python tests/mutation/run.py [--module PATH]... [--again] [--count] [--results FILE]

cosmic-ray would start a Python for every mutant, of which most of the time goes into importing torch and collecting
tests. Here one process collects the tests of a module and forks for every mutant: the child changes the module that is
imported already and runs the tests, the last one that failed first. What survives is confirmed by a child that imports
the package anew, with the mutated source in the module's place. Files are never changed.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.machinery
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import cosmic_ray.ast
import cosmic_ray.mutating
import cosmic_ray.plugins
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from patching import replace_in_place

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("mutants.toml")
RESULTS = Path(__file__).with_name("results.json")
HANGS = 6 * 3600
FIRST_EXAMPLES, EXAMPLES = 20, 50
"""Examples that hypothesis draws in a test, always the same ones: when a mutant is tried, and when it has survived."""


@dataclass(frozen=True)
class Mutant:
    """One change to one module."""

    module: str
    operator: str
    occurrence: int
    line: int
    column: int


KEYS = [field.name for field in fields(Mutant)]


class Profile:
    """Gives hypothesis its profile once the tests' conftest has set its own."""

    def __init__(self, examples: int) -> None:
        self.examples = examples

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        from hypothesis import HealthCheck, Phase, settings

        settings.register_profile(
            "mutation",
            max_examples=self.examples,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],  # that it fails is enough
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile("mutation")


class Mutations:
    """In place of the tests' own loop, runs them once for every mutant, each time in a fork."""

    def __init__(self, mutants: list[Mutant], timeout: float, survivors: Path) -> None:
        self.mutants, self.timeout, self.survivors = mutants, timeout, survivors
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests with the module's own source in its place, and stop if they fail; then with each mutant's."""
        module = self.mutants[0].module
        items = sorted(
            session.items, key=lambda item: hasattr(getattr(item, "obj", None), "hypothesis")
        )  # cases by hand first
        if self.in_a_fork(items, module, (ROOT / module).read_text(encoding="utf-8"), 600) is not None:
            raise pytest.UsageError("the tests fail without any mutation")

        survived = []
        for mutant in self.mutants:
            noticed = self.in_a_fork(items, module, mutated(mutant), self.timeout)
            if noticed is None:
                survived.append(asdict(mutant))
            elif noticed:
                items.insert(0, items.pop(noticed))

        self.survivors.write_text(json.dumps(survived))
        return True

    def in_a_fork(self, items: list[pytest.Item], module: str, source: str, timeout: float) -> int | None:
        """Which test noticed; None if all passed. A module that cannot be imported, and a test without end, is 0."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            limit_processor_time(timeout)
            self.run_until_one_fails(items, module, source, writer)

        os.close(writer)
        status = wait_for(child)
        place = os.read(reader, 16).decode()
        os.close(reader)

        return None if status == 0 else int(place or 0)

    def run_until_one_fails(self, items: list[pytest.Item], module: str, source: str, writer: int) -> NoReturn:
        """The child: it never returns."""
        try:
            # most objectives are imported only when they are asked for
            replace_in_place(importlib.import_module(Finder(Path(module), "").name), source)
            for place, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    os.write(writer, str(place).encode())
                    os._exit(1)
        except BaseException:
            os._exit(1)
        os._exit(0)


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


def limit_processor_time(seconds: float) -> None:
    """Let this process be killed after so many seconds of processor time; on a busy machine the clock says nothing."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))


def wait_for(child: int) -> int:
    """The exit status of a child; -9 if it hangs without using the processor."""
    end = time.monotonic() + HANGS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)

    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_pytest(tests: list[str], plugins: list[object], timeout: float, finder: Finder | None = None) -> int:
    """pytest's exit status, from a fork without output."""
    child = os.fork()
    if child == 0:
        limit_processor_time(timeout)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        if finder is not None:
            sys.meta_path.insert(0, finder)
        options = ["-x", "-s", "--tb=native", "-p", "no:cacheprovider", "-p", "no:xdist"]
        code = pytest.main([*options, "-o", "addopts=--import-mode=importlib", *tests], plugins=plugins)
        os._exit(int(code))

    return wait_for(child)


def import_what_is_not_ours() -> None:
    """Import everything heavy that tests need besides the package."""
    for name in ("accelerate", "datasets", "hypothesis.extra.numpy", "onnxruntime", "sklearn.metrics", "transformers"):
        importlib.import_module(name)
    transformers = sys.modules["transformers"]
    for name in ("Trainer", "AutoModel", "AutoTokenizer"):
        getattr(transformers, name)  # imported when asked for
    importlib.import_module("torch").set_num_threads(1)


def main() -> None:
    """Run every mutant, print the survivors and the score, and write both after each module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", action="append", help="this module alone; may be given several times")
    parser.add_argument("--again", action="store_true", help="run only what survived the last time")
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
    for file, each in mutants.items():
        known = json.loads(given.results.read_text(encoding="utf-8")) if given.results.is_file() else {}
        if given.again:
            survivors = [tuple(row[key] for key in KEYS) for row in known["survivors"]]
            chosen = [mutant for mutant in each if astuple(mutant) in survivors]
        else:
            chosen = each

        survived = list(survivors_of(chosen, config["tests"][str(file)], config["timeout"])) if chosen else []
        print(summary(str(file), len(each), len(survived)), flush=True)
        write(given.results, known, str(file), len(each), [described(mutant, config) for mutant in survived])

    counts = json.loads(given.results.read_text(encoding="utf-8"))["modules"].values()
    print(summary("all", sum(row["mutants"] for row in counts), sum(row["mutants"] - row["killed"] for row in counts)))


def survivors_of(mutants: list[Mutant], tests: list[str], timeout: float) -> Iterator[Mutant]:
    """Run the tests on every mutant; those that they do not notice."""
    with tempfile.NamedTemporaryFile() as file:
        loop = Mutations(mutants, timeout, Path(file.name))
        if (status := run_pytest(tests, [Profile(FIRST_EXAMPLES), loop], timeout * len(mutants) + 600)) not in (
            0,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            sys.exit(f"{mutants[0].module}: its tests fail without any mutation (status {status})")
        candidates = [Mutant(**row) for row in json.loads(Path(file.name).read_text())]

    for mutant in candidates:
        finder = Finder(Path(mutant.module), mutated(mutant))
        if run_pytest(tests, [Profile(EXAMPLES)], timeout, finder) == 0:
            place = f"{mutant.module}:{mutant.line}:{mutant.column}"
            print(f"survived: {place} {mutant.operator} #{mutant.occurrence}", flush=True)
            yield mutant


def described(mutant: Mutant, config: dict[str, Any]) -> dict[str, Any]:
    """A survivor with its line and why no test can notice it, if that is known."""
    code = (ROOT / mutant.module).read_text(encoding="utf-8").splitlines()[mutant.line - 1].strip()
    reasons = [
        row["reason"]
        for row in config["equivalent"]
        if row["module"] == mutant.module
        and (row["code"] == code if "code" in row else row["contains"] in code)
        and re.fullmatch(row["operator"], mutant.operator)
    ]
    return {**asdict(mutant), "code": code, "reason": reasons[0] if reasons else None}


def summary(name: str, mutants: int, survived: int) -> str:
    """One line of a score."""
    return f"{name}: {mutants - survived} of {mutants} killed, {1 - survived / max(mutants, 1):.1%}"


def write(path: Path, known: dict[str, Any], module: str, mutants: int, survivors: list[dict[str, Any]]) -> None:
    """Put the counts and survivors of a module in place of those of the last run; other modules stay."""
    modules = {**known.get("modules", {}), module: {"mutants": mutants, "killed": mutants - len(survivors)}}
    others = [row for row in known.get("survivors", []) if row["module"] != module]
    total, killed = (sum(row[key] for row in modules.values()) for key in ("mutants", "killed"))
    document = {
        "mutants": total,
        "killed": killed,
        "score": round(killed / max(total, 1), 4),
        "modules": modules,
        "survivors": others + survivors,
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

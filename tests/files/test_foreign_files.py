"""Every verb, in a folder full of modules with the names that we import: none is run, and nothing is written elsewhere.

The verbs are walked once, in one process, which is watched as all processes that it starts: an audit hook, installed
by a `sitecustomize`, records each path that Python opens for writing, makes, renames or removes. What libraries write
outside of Python shows in the folders afterwards.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rekd_edge.cli import app
from rekd_edge.process import import_path

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="watching needs /proc")

POISON = """
import posix
posix.write(posix.open({marker!r}, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o644), {name!r} + b" ")
raise ImportError("foreign")
"""
WATCH = """
import os, sys
_log = os.open(os.environ["WALK_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# events, and which of their arguments is the descriptor of the folder that a path begins at
_ONE = {"os.mkdir": 2, "os.remove": 1, "os.rmdir": 1, "os.chmod": 2, "os.truncate": None}
_TWO = {"os.rename": (2, 3), "os.link": (2, 3), "os.symlink": (None, 2)}
def _note(path, folder=-1):
    if isinstance(path, (str, bytes)):
        base = os.readlink(f"/proc/self/fd/{folder}") if folder not in (-1, None) else os.getcwd()
        os.write(_log, os.fsencode(os.path.normpath(os.path.join(base, os.fsdecode(path)))) + b"\\n")
def _hook(event, arguments):
    if event == "open" and arguments[2] & _WRITES:
        _note(arguments[0])
    elif event in _ONE:
        place = _ONE[event]
        _note(arguments[0], -1 if place is None else arguments[place])
    elif event in _TWO:
        for path, place in zip(arguments[:2], _TWO[event]):
            if place is not None:
                _note(path, arguments[place])
sys.addaudithook(_hook)
"""
WALK = """
import json, sys
import rekd_edge.cli

def walk():
    ends = []
    for verb in json.load(open(sys.argv[1])):
        sys.argv = ["rekd-edge", *verb]
        if verb[0] == "demo":
            shorten_demo()
        try:
            rekd_edge.cli.main()
        except SystemExit as end:
            ends.append(end.code)
    return ends

def shorten_demo():
    import rekd_edge.demo as demo
    load = demo.load_config
    few = {"data.train_limit": 40, "data.eval_limit": 20, "epochs": 1, "allow_weak_teacher": True}
    demo.TEACHER_EPOCHS = 1
    demo.load_config = lambda name, settings: load(name, {**settings, **few})

if __name__ == "__main__":
    print("WALKED", walk(), file=sys.stderr)
"""
GRID = """\
title: one run
source: nobody
recipe: planted
settings: {data.train_limit: 40, data.eval_limit: 20, data.max_length: 32, control: null}
methods: [cls]
rows:
  student: {layers: 1}
"""
PACKAGES = Path(__file__).parents[2] / "js" / "node_modules"
"""What `web` takes from npm, where it was installed."""
QUICK = ["data.train_limit=40", "data.eval_limit=20", "data.max_length=32", "epochs=1", "batch_size=20"]


def poison(folder: Path, marker: Path, names: Iterable[str]) -> None:
    """Lay a module of each name into a folder, which tells of itself when it is imported."""
    for name in names:
        (folder / f"{name}.py").write_text(POISON.format(marker=str(marker), name=name.encode()))


def importable_names() -> set[str]:
    """The standard library, and whatever is installed."""
    return {*sys.stdlib_module_names, *importlib.metadata.packages_distributions(), "rekd_edge", "sitecustomize"}


@dataclass
class Walk:
    """What a walk through the verbs left."""

    root: Path
    statuses: list[int]
    imported: str
    written: set[Path]
    """Paths that were opened for writing, made, renamed or removed, and those that are there now."""
    err: str


def verbs(root: Path, bundle: Path) -> list[list[str]]:
    """Each verb with small work, outputs in `root/work`."""
    work = root / "work"
    settings = [word for setting in QUICK for word in ("--set", setting)]
    model = ["--data", "builtin:planted", "--backbone", "random:bert-nano", "--layers", "1", *settings]
    measured = ["--data", "builtin:planted", "--set", "data.eval_limit=20"]
    weak = ["--set", "allow_weak_teacher=true"]
    teacher, student, log = str(work / "teacher"), str(work / "student"), str(work / "log.jsonl")
    of_bundle = ["--bundle", str(work / "bundle")]
    few = ["--set", "data.train_limit=64", "--set", "data.eval_limit=50"]
    page = [["web", str(work / "bundle"), "--output", str(work / "page"), "--packages", str(PACKAGES)]]
    return [
        ["train", "--method", "re", *model, "--output", teacher],
        ["train", "--method", "rekd", "--teacher", teacher, *weak, *model, "--output", student],
        ["train", "--method", "rekd", "--teacher", teacher, *weak, *model, "--output", student, "--resume"],
        ["export", student, "--output", str(work / "bundle"), "--precision", "int8"],
        ["sweep", str(root / "grid.yaml"), "--output", str(work / "sweep"), "--workers", "1"],
        ["evaluate", student, *measured, "--split", "val"],
        ["evaluate", str(work / "bundle"), *measured],
        ["demo", "--output", str(work / "demo")],
        ["sign", "--new-key", str(work / "key.pem")],
        ["sign", str(work / "bundle"), "--key", str(work / "key.pem")],
        ["predict", str(work / "bundle"), *["A delight."] * 30, "--record", log],
        ["verify-record", log, *of_bundle],
        ["monitor", log, *of_bundle],
        ["audit", student, "--data", "builtin:planted", *few, "--limit", "50"],
        ["report", student, "--data", "builtin:planted", *few, "--limit", "20", "-o", str(work / "report.html")],
        ["build", "builtin:planted", "--backbone", "random:bert-nano", *few, "--output", str(work / "built")],
        *(page if PACKAGES.is_dir() else []),
        *device_verbs(root, bundle),
    ]


def device_verbs(root: Path, bundle: Path) -> list[list[str]]:
    """Those that need no training stack."""
    return [
        ["predict", str(bundle), "A delight."],
        ["predict", str(bundle), "--input", str(root / "in.parquet"), "--output", str(root / "work" / "rows")],
        ["bench", str(bundle), "--repeats", "2"],
        ["inspect", str(bundle)],
        ["verify", str(bundle)],
    ]


def walk(root: Path, commands: list[list[str]], here: Path) -> Walk:
    """Run the commands in `here`, watched."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("work", "site", "home", "temporary"):
        (root / name).mkdir()
    marker, log = root / "imported", root / "log"
    poison(here, marker, importable_names())
    pq.write_table(pa.table({"text": ["A delight.", "Dull."]}), root / "in.parquet")
    (root / "grid.yaml").write_text(GRID)
    (root / "site" / "sitecustomize.py").write_text(WATCH)
    (root / "site" / "walk.py").write_text(WALK)
    (root / "commands.json").write_text(json.dumps(commands))
    log.touch()
    before = set(root.rglob("*"))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COV")},
        "PYTHONPATH": os.pathsep.join([str(root / "site"), *import_path()]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "WALK_LOG": str(log),
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "temporary"),
        "TORCHINDUCTOR_CACHE_DIR": str(root / "home" / ".cache" / "torchinductor"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, str(root / "site" / "walk.py"), str(root / "commands.json")],
        cwd=here, env=environment, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("WALKED "), done.stderr
    return Walk(
        root,
        json.loads(last.removeprefix("WALKED ")),
        marker.read_text() if marker.exists() else "",
        {Path(line) for line in log.read_text().splitlines()} | (set(root.rglob("*")) - before),
        done.stderr,
    )


@pytest.fixture(scope="module")
def walked(int8_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    root = tmp_path_factory.mktemp("walk")
    here = root / "bundle"
    shutil.copytree(int8_bundle, here)
    return walk(root, verbs(root, here), here)


def elsewhere(found: Walk, outputs: Iterable[str]) -> list[Path]:
    """Written paths that are neither an output, nor staging or lock beside one, nor teacher targets, nor a cache."""
    work = found.root / "work"
    beginnings = [work / "teacher-targets", found.root / "home" / ".cache", found.root / "temporary", Path("/dev")]
    beginnings += [found.root / "home" / ".config"]  # matplotlib makes a folder for its settings
    beginnings += [work / name for name in outputs]

    def allowed(path: Path) -> bool:
        beside = path.is_relative_to(work) and any(
            path.relative_to(work).parts[:1] and path.relative_to(work).parts[0].startswith(f".{name}.")
            for name in outputs
        )
        return beside or any(path.is_relative_to(beginning) for beginning in beginnings)

    return sorted(path for path in found.written - {work} if not allowed(path))  # a folder that holds an output is made


@pytest.mark.slow
def test_device_verbs_import_and_write_nothing_foreign(int8_bundle: Path, tmp_path: Path) -> None:
    here = tmp_path / "bundle"
    shutil.copytree(int8_bundle, here)
    found = walk(tmp_path, device_verbs(tmp_path, here), here)
    assert found.imported == ""
    assert found.statuses == [0] * 5, found.err
    assert elsewhere(found, ["rows"]) == []
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["rows"]


@pytest.mark.slow
def test_every_verb_is_walked(walked: Walk) -> None:
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    commands: list[list[Any]] = json.loads((walked.root / "commands.json").read_text())
    apart = {"web", "push"}  # which need packages and a hub: tests/web, tests/hub
    assert {command[0] for command in commands} | apart == known
    assert walked.statuses == [0] * len(commands), walked.err


@pytest.mark.slow
def test_no_verb_imports_what_lies_about(walked: Walk) -> None:
    assert walked.imported == ""


@pytest.mark.slow
def test_no_verb_writes_elsewhere(walked: Walk) -> None:
    outputs = ["teacher", "student", "bundle", "sweep", "demo", "rows", "key.pem", "key.pem.pub", "log.jsonl", "built"]
    outputs += ["report.html", "report-accuracy-ratio.svg", "report-training.svg"]
    outputs += ["page"] if PACKAGES.is_dir() else []
    assert [str(path) for path in elsewhere(walked, outputs)] == []
    assert {path.name for path in (walked.root / "work").iterdir()} == {*outputs, "teacher-targets"}
    assert [path.name for path in (walked.root / "temporary").iterdir()] == []


@pytest.mark.parametrize("named", [False, True])
def test_module_that_is_run_imports_from_the_folder_only_where_asked(named: bool, tmp_path: Path) -> None:
    """`python -m rekd_edge`, as torchrun starts it; what Python imports before is out of reach."""
    early = subprocess.run(
        [sys.executable, "-I", "-c", "import runpy, pkgutil, sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = importable_names() - {name.partition(".")[0] for name in early.stdout.split()} - {"rekd_edge"}
    here, marker = tmp_path / "here", tmp_path / "imported"
    here.mkdir()
    poison(here, marker, ["typer"] if named else names)
    path = os.pathsep.join([*([str(here)] if named else []), *import_path()])
    command = [sys.executable, "-m", "rekd_edge", "--version"]
    done = subprocess.run(
        command, cwd=here, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert marker.exists() == named
    assert (done.returncode == 0) == (not named), done.stderr

"""Does the next call reach the same result after a command was killed, terminated or ran out of disk?

    python benchmarks/faults.py --kills 50 --full-disks 10

With a tiny model on generated reviews, `train` (teacher targets, a control and a distilled student), `export` (int8),
`sweep` (a grid of six runs), `predict --input` (four files) and `evaluate` are interrupted at random moments, up to
five times before a call may finish: by SIGKILL four times in five, otherwise by SIGTERM, which must end with status
143. For a full disk, the size of files is limited at random. Afterwards the result must equal that of an undisturbed
call, and nothing may be left beside it. Writes `results/faults.json` as it goes, where the rows of verbs that are not
asked for stay; exits with status 1 on any difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _results import RESULTS, write_results

MODEL = ["--data", "builtin:planted", "--backbone", "random:bert-nano", "--layers", "1"]
SETTINGS = {"data.train_limit": 96, "data.eval_limit": 48, "data.max_length": 32, "batch_size": 24, "epochs": 2}
FEW = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
OFTEN = ["--set", "checkpoint_minutes=1e-9", "--set", "allow_weak_teacher=true"]
GRID = """\
title: planted reviews in tiny
source: nobody
recipe: planted
settings: {data.train_limit: 96, data.eval_limit: 48, data.max_length: 32, epochs: 1, batch_size: 24}
methods: [cls, re, rekd]
rows:
  teacher: {methods: [re], layers: 2, settings: {allow_weak_teacher: true}}
  student: {layers: 1, generator_layers: 1, teacher: teacher, settings: {allow_weak_teacher: true}}
"""
PARQUET_FILES, PARQUET_ROWS = 4, 6000
SIGTERM_SHARE = 0.2
IN_A_ROW = 5
"""How many faults in a row before a call may finish."""
EARLIEST, LATEST = 0.02, 0.98
"""When a fault may come, in parts of the time that an undisturbed call takes."""


@dataclass(frozen=True)
class Verb:
    """A command to disturb."""

    name: str
    arguments: Callable[[Path], list[str]]
    """The command line, given the folder for its output."""
    result: Callable[[Path, str], Any]
    """What must be equal each time, read from that folder and from standard output."""
    leaves: frozenset[str]
    """The names in the folder afterwards."""


@dataclass
class Tally:
    """The faults of a verb, and what went wrong after them."""

    faults: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    runs: int = 0
    in_place: int = 0
    """Runs whose last fault came when the result was complete already."""
    wrong: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.faults.values())


def call(arguments: list[str], folder: str, largest: int | None) -> None:
    """Run a command line in a child process.

    Args:
        arguments: without the program's name.
        folder: where standard output and standard error are written.
        largest: the size in bytes that no file may exceed.
    """
    from rekd_edge import cli

    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)

    if largest is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["rekd-edge", *arguments]
    cli.main()


class Harness:
    """Runs verbs in child processes that are forked with everything imported."""

    def __init__(self, root: Path, seed: int, keep: Callable[[Verb, Tally], None]) -> None:
        self.root = root
        self.keep = keep
        self.chance = random.Random(seed)
        self.server = multiprocessing.get_context("forkserver")
        self.server.set_forkserver_preload(["rekd_edge.cli", "rekd_edge.training.run", "rekd_edge.export"])

    def start(self, verb: Verb, output: Path, largest: int | None = None) -> Any:
        """Start a call without waiting for it."""
        streams = self.root / "streams"
        streams.mkdir(exist_ok=True)

        child = self.server.Process(target=call, args=(verb.arguments(output), str(streams), largest))
        child.start()
        return child

    def undisturbed(self, verb: Verb) -> tuple[Any, float]:
        """The result of a call that nothing disturbs, and its seconds; a first call warms the server up."""
        for attempt in ("warm", "undisturbed"):
            folder = self.new_folder(f"{verb.name}-{attempt}")
            began = time.monotonic()
            child = self.start(verb, folder)
            child.join()

            if child.exitcode != 0:
                raise SystemExit(f"{verb.name} fails by itself: {self.printed('err')}")

            seconds = time.monotonic() - began

        return verb.result(folder, self.printed("out")), seconds

    def kill(self, verb: Verb, kills: int) -> Tally:
        """Interrupt calls at random moments, `kills` times in all; each folder is resumed until a call finishes."""
        expected, seconds = self.undisturbed(verb)
        tally = Tally({"SIGKILL": 0, "SIGTERM": 0})

        while tally.total < kills:
            folder, before = self.new_folder(f"{verb.name}-killed"), tally.total

            while True:
                child = self.start(verb, folder)
                tally.calls += 1
                enough = tally.total - before >= IN_A_ROW
                child.join(None if enough else self.chance.uniform(EARLIEST, LATEST) * seconds)
                if child.exitcode is not None:
                    break
                self.interrupt(child, tally)

            if tally.total == before:  # calls have become faster than the first ones were
                seconds *= 0.9
            self.check(verb, folder, child.exitcode, expected, tally)

        return tally

    def interrupt(self, child: Any, tally: Tally) -> None:
        """Send a signal and wait; SIGTERM must end with its status."""
        name = "SIGTERM" if self.chance.random() < SIGTERM_SHARE else "SIGKILL"
        os.kill(child.pid, getattr(signal, name))
        child.join(120)

        if child.exitcode is None:
            child.kill()
            tally.wrong.append("did not end within 120 s after SIGTERM")
        elif child.exitcode == 0:  # it had just finished
            return
        elif name == "SIGTERM" and child.exitcode not in (143, -signal.SIGTERM):  # -15 before main handles signals
            tally.wrong.append(f"status {child.exitcode} after SIGTERM: {self.printed('err')[-300:]}")

        tally.faults[name] += 1

    def fill_disk(self, verb: Verb, times: int) -> Tally:
        """Limit the size of files in a call, so that a write fails, and let the next call finish."""
        expected, _ = self.undisturbed(verb)
        folder = self.root / f"{verb.name}-undisturbed"
        largest = max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=1)
        tally = Tally({"full disk": 0})

        for _ in range(times):
            folder = self.new_folder(f"{verb.name}-full")
            child = self.start(verb, folder, self.chance.randrange(largest))
            child.join()
            tally.calls += 1
            err = self.printed("err")
            tally.faults["full disk"] += child.exitcode != 0

            if child.exitcode not in (0, 1) or "Traceback" in err or (child.exitcode and "rekd-edge: " not in err):
                tally.wrong.append(f"status {child.exitcode} on a full disk: {err[-300:]}")

            child = self.start(verb, folder)
            child.join()
            tally.calls += 1
            self.check(verb, folder, child.exitcode, expected, tally)

        return tally

    def check(self, verb: Verb, folder: Path, status: int, expected: Any, tally: Tally) -> None:
        """Compare the result with the expected one, look for what is left over, and keep what was found so far."""
        tally.runs += 1
        self.judge(verb, folder, status, expected, tally)
        self.keep(verb, tally)

    def judge(self, verb: Verb, folder: Path, status: int, expected: Any, tally: Tally) -> None:
        """Add to `wrong` what differs from an undisturbed call; an export that was killed once its bundle was in place
        is not done again, and the bundle must be whole."""
        if status == 2 and "is not empty" in self.printed("err"):
            tally.in_place += 1
        elif status != 0:
            tally.wrong.append(f"status {status}: {self.printed('err')[-300:]}")
            return

        if verb.result(folder, self.printed("out")) != expected:
            tally.wrong.append("another result")

        left = {path.name for path in folder.iterdir()} ^ verb.leaves
        left |= hidden_names(folder) ^ hidden_names(self.root / f"{verb.name}-undisturbed")
        if left:
            tally.wrong.append(f"left over or missing: {sorted(left)}")

    def new_folder(self, name: str) -> Path:
        """An empty folder for a verb's output."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def printed(self, stream: str) -> str:
        """What the last call printed."""
        file = self.root / "streams" / stream
        return file.read_text(errors="replace") if file.is_file() else ""


def hidden_names(folder: Path) -> set[str]:
    """Names of files that begin with a dot, such as those of folders that are being written."""
    return {path.name for path in folder.rglob(".*") if path.name != ".locks"}


def digests(folder: Path, *names: str) -> dict[str, str]:
    """The SHA-256 of files in a folder."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def of_run(folder: Path, _: str) -> Any:
    """Weights of a run and its controls and its figures, bit for bit, and every name in it."""
    run = folder / "run"
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*"))
    weights = [name for name in names if name.endswith("model.safetensors")]
    return names, digests(run, *weights, "metrics.json", "tokenizer.json")


def of_bundle(folder: Path, _: str) -> Any:
    """The graph, bit for bit, and every name beside it."""
    bundle = folder / "bundle"
    return sorted(path.name for path in bundle.iterdir()), digests(bundle, "model.onnx", "tokenizer.json")


def of_sweep(folder: Path, _: str) -> Any:
    """The rows of the table, and the runs."""
    document = json.loads((folder / "sweep" / "table.json").read_text())
    return document["table"], document["rows"], document["failed"]


def of_rows(folder: Path, _: str) -> Any:
    """All rows, scores rounded: their last digits depend on what shares a batch."""
    import pyarrow.parquet as pq

    columns = ["id", "label", "mask", "error"]
    return [pq.read_table(path, columns=columns).to_pylist() for path in sorted((folder / "rows").glob("*.parquet"))]


def of_report(_: Path, out: str) -> Any:
    """The figures that evaluate prints."""
    return {key: value for key, value in json.loads(out).items() if "second" not in key}


def prepare(root: Path) -> dict[str, Verb]:
    """Make the teacher, the bundle and the inputs that the verbs need."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rekd_edge.data import DataSettings, load_data
    from rekd_edge.export import export_bundle
    from rekd_edge.training.configuration import load_config
    from rekd_edge.training.run import train

    teacher, bundle = root / "teacher", root / "bundle"
    config = {**SETTINGS, "method": "re", "backbone": "random:bert-nano", "layers": 1, "data.spec": "builtin:planted"}
    train(load_config(None, {key: str(value) for key, value in config.items()}), teacher)
    export_bundle(teacher, bundle, precision="int8")

    (root / "grid.yaml").write_text(GRID)
    texts = list(load_data("builtin:planted", DataSettings()).split("train").inputs)
    (root / "texts").mkdir()
    for number in range(PARQUET_FILES):
        rows = [texts[(number + place) % len(texts)] for place in range(PARQUET_ROWS)]
        pq.write_table(pa.table({"id": range(PARQUET_ROWS), "text": rows}), root / "texts" / f"{number}.parquet")

    train_student = ["train", "--method", "rekd", "--teacher", str(teacher), *MODEL, *FEW, *OFTEN, "--resume"]
    export_teacher = ["export", str(teacher), "--precision", "int8"]
    sweep_grid = ["sweep", str(root / "grid.yaml"), "--workers", "2"]
    predict_files = ["predict", str(bundle), "--input", str(root / "texts"), "--workers", "2"]
    evaluate_bundle = ["evaluate", str(bundle), "--data", "builtin:planted", "--json"]

    def into(arguments: list[str], name: str) -> Callable[[Path], list[str]]:
        return lambda folder: [*arguments, "--output", str(folder / name)]

    verbs = [
        Verb("train", into(train_student, "run"), of_run, frozenset({"run", "teacher-targets"})),
        Verb("export", into(export_teacher, "bundle"), of_bundle, frozenset({"bundle"})),
        Verb("sweep", into(sweep_grid, "sweep"), of_sweep, frozenset({"sweep"})),
        Verb("predict", into(predict_files, "rows"), of_rows, frozenset({"rows"})),
        Verb("evaluate", lambda folder: evaluate_bundle, of_report, frozenset()),
    ]
    return {verb.name: verb for verb in verbs}


def main() -> None:
    """Disturb the verbs, one after the other, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", nargs="+", default=["train", "export", "sweep", "predict", "evaluate"])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--full-disks", type=int, default=10)
    parser.add_argument("--seed", type=int, default=2026)
    arguments = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    began = time.monotonic()

    def keep(verb: Verb, tally: Tally) -> None:
        row = {"verb": verb.name, **asdict(tally), "seconds": round(time.monotonic() - began)}
        rows[key_of(row)] = row
        write_results("faults", list((earlier_rows() | rows).values()))

    with tempfile.TemporaryDirectory() as place:
        verbs = prepare(Path(place))
        harness = Harness(Path(place), arguments.seed, keep)

        for name in arguments.verbs:
            for disturb, times in ((harness.kill, arguments.kills), (harness.fill_disk, arguments.full_disks)):
                if not times or (disturb == harness.fill_disk and not verbs[name].leaves):  # it writes nothing
                    continue

                began = time.monotonic()
                disturb(verbs[name], times)
                print(json.dumps(list(rows.values())[-1]), file=sys.stderr, flush=True)

    if any(row["wrong"] for row in rows.values()):
        sys.exit(1)


def earlier_rows() -> dict[tuple[str, str], dict[str, Any]]:
    """What earlier calls found, of other verbs too."""
    file = RESULTS / "faults.json"
    return {key_of(row): row for row in json.loads(file.read_text())["rows"]} if file.is_file() else {}


def key_of(row: dict[str, Any]) -> tuple[str, str]:
    """A row stands for one verb and one kind of fault."""
    return row["verb"], "full disk" if "full disk" in row["faults"] else "kill"


if __name__ == "__main__":
    main()

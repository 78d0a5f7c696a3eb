"""Calls of a release's command line, this one's or another's, without importing torch each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PYTHON = os.environ.get("REKD_EDGE_PYTHON", sys.executable)
"""The interpreter of an environment that holds the release."""
ENDLESS = 300
"""Seconds after which a call is taken to go on for ever."""
SIZES = {"data.train_limit": 96, "data.eval_limit": 48, "batch_size": 24}
SMALL = ["--layers", "1", *(word for name, value in SIZES.items() for word in ("--set", f"{name}={value}"))]
TEXT = ["--data", "builtin:planted", "--backbone", "random:bert-nano", "--set", "data.max_length=32", *SMALL]
SHORT = ["--set", "epochs=1"]
IMAGE = ["--data", "builtin:digits", "--backbone", "random:vit-nano", *SMALL]
LONG = [*TEXT, "--set", "checkpoint_minutes=1e-9", "--set", "epochs=3"]
"""What trains in a second, and in a few."""
SERVER = """
import json, os, sys
import rekd_edge.cli, rekd_edge.training.run, rekd_edge.export, datasets, transformers, onnxruntime

for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        print(os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if not child:
        for number, name in enumerate(job["streams"]):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        os.chdir(job["folder"])
        sys.argv = ["rekd-edge", *job["arguments"]]
        try:
            rekd_edge.cli.main()
        except SystemExit as end:  # without the clean-up of threads that the fork does not have
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code or 0)
    print(child, flush=True)
"""


@dataclass(frozen=True)
class Done:
    """How a call ended, and what it printed."""

    status: int
    out: str
    err: str

    def sentence(self, status: int = 2) -> str:
        """Standard error, which must be a sentence for that exit status and no traceback."""
        assert self.status == status, self
        assert "Traceback" not in self.err
        assert "report it" not in self.err
        return self.err


class Release:
    """Has everything imported, and forks for every call that trains or exports."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.server = subprocess.Popen(
            [PYTHON, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=self.folder.name,
        )
        self.calls = 0

    def close(self) -> None:
        self.server.kill()
        self.server.communicate()
        self.folder.cleanup()

    def start(self, *arguments: str | Path, given: str = "") -> tuple[int, Path]:
        """The process of a call, and the folder of its streams."""
        self.calls += 1
        streams = Path(self.folder.name) / str(self.calls)
        streams.mkdir()
        (streams / "in").write_text(given)
        names = [str(streams / name) for name in ("in", "out", "err")]
        return self._ask(streams=names, folder=str(streams), arguments=[str(word) for word in arguments]), streams

    def wait(self, process: int, streams: Path) -> Done:
        status = self._ask(wait=process)
        return Done(status, *((streams / name).read_text() for name in ("out", "err")))

    def __call__(self, *arguments: str | Path, given: str = "") -> Done:
        """A call that is left to its end."""
        return self.wait(*self.start(*arguments, given=given))

    def cut_off(self, output: Path, *arguments: str | Path) -> Path:
        """Kill a training when its second checkpoint is there; the newest one."""
        process, streams = self.start("train", "--output", output, *arguments)
        end = time.monotonic() + ENDLESS
        while len(checkpoints(output)) < 2 and not ended(process) and time.monotonic() < end:
            time.sleep(0.002)
        os.kill(process, signal.SIGKILL)
        done = self.wait(process, streams)
        assert done.status == -signal.SIGKILL, done
        return checkpoints(output)[-1]

    def _ask(self, **job: Any) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


def ended(process: int) -> bool:
    """Whether nobody has waited yet for a process that is dead."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def checkpoints(output: Path) -> list[Path]:
    """Those in a run's folder that are written to their end, as far as their names say."""
    found = [path for path in output.glob("checkpoints/**/checkpoint-*") if (path / "trainer_state.json").is_file()]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def rekd_edge(
    *arguments: str | Path,
    given: str = "",
    folder: Path | None = None,
    redirect: str = "",
    limit: float = ENDLESS,
    **environment: str,
) -> Done:
    """A call of what a device runs, as a process of its own; `redirect` is a shell's."""
    words = [str(Path(PYTHON).with_name("rekd-edge")), *map(str, arguments)]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirect}', "bash", *words],
        check=False,
        input=given,
        capture_output=True,
        text=True,
        timeout=limit,
        cwd=folder or Path(PYTHON).anchor,  # where no release lies
        env={**os.environ, **environment},
    )
    return Done(done.returncode, done.stdout, done.stderr)

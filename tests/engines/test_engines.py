"""Tasks on every engine: order, needs, errors, lost processes, room, and that nothing outlives the caller."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import engine_calls as calls
import pytest

from rekd_edge.engines import EngineSettings, Outcome, Task, run_tasks

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One Ray of this machine for all tests of the module."""
    from rekd_edge.engines.ray import RayEngine

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        with closing(RayEngine(2, None)):
            yield


@pytest.fixture(params=["local", pytest.param("ray", marks=[needs_ray, pytest.mark.slow])])
def engine(request: pytest.FixtureRequest) -> EngineSettings:
    """Each engine with two workers."""
    if request.param == "ray":
        request.getfixturevalue("ray_here")
    return EngineSettings(request.param, workers=2)


def run(tasks: Sequence[Task], settings: EngineSettings) -> dict[str, Outcome]:
    outcomes = list(run_tasks(tasks, settings))
    assert sorted(outcome.task.name for outcome in outcomes) == sorted(task.name for task in tasks)
    return {outcome.task.name: outcome for outcome in outcomes}


def test_values_errors_and_needs(engine: EngineSettings) -> None:
    tasks = [
        Task("last", calls.add, (4,), needs=("sum", "one")),
        Task("one", calls.add, (1,)),
        Task("input", calls.wrong_input),
        Task("failure", calls.failed),
        Task("broken", calls.broken),
        Task("exit", calls.leave),
        Task("no value", calls.unpicklable),
        Task("after input", calls.add, (1,), needs=("one", "input")),
        Task("after that", calls.add, (1,), needs=("after input",)),
        Task("sum", calls.add, (2, 3), needs=("one",)),
    ]
    order = [outcome.task.name for outcome in run_tasks(tasks, engine)]
    assert order.index("one") < order.index("sum") < order.index("last")
    found = run(tasks, engine)
    assert {name: found[name].value for name in ("one", "sum", "last")} == {"one": 1, "sum": 5, "last": 4}
    errors = {name: outcome.error for name, outcome in found.items() if outcome.error is not None}
    assert errors.pop("no value", "").startswith(("AttributeError: ", "PicklingError: "))
    assert errors == {
        "input": "The input is wrong; mend it.",
        "failure": "The work failed.",
        "broken": "KeyError: 'absent'",
        "exit": "SystemExit: enough",
        "after input": "It needs input, which failed.",
        "after that": "It needs after input, which failed.",
    }
    assert 'raise KeyError("absent")' in (found["broken"].details or "")
    assert found["input"].details is None


def test_a_lost_task_starts_again_and_breaks_no_other(engine: EngineSettings, tmp_path: Path) -> None:
    for name in ("once", "twice", "always"):
        (tmp_path / name).mkdir()
    started: list[str] = []
    tasks = [
        Task("once", calls.die_first, (tmp_path / "once", 1)),
        Task("twice", calls.die_first, (tmp_path / "twice", 2)),
        Task("always", calls.die_first, (tmp_path / "always", 9)),
        Task("silent", calls.exit_silently),
        Task("whole", calls.interval, (0.5,)),
        Task("after", calls.add, (1, 1), needs=("once",)),
        Task("never", calls.add, (1, 1), needs=("always",)),
    ]
    found = {outcome.task.name: outcome for outcome in run_tasks(tasks, engine, lambda task: started.append(task.name))}
    assert (found["once"].value, found["twice"].value, found["after"].value) == (1, 2, 2)
    assert found["whole"].error is None
    assert "died 3 times" in (found["always"].error or "")
    assert "died 3 times" in (found["silent"].error or "")
    assert found["never"].error == "It needs always, which failed."
    assert [started.count(name) for name in ("once", "twice", "always", "silent", "whole", "never")] == [
        2,
        3,
        3,
        3,
        1,
        0,
    ]
    assert len(list((tmp_path / "always").iterdir())) == 3


def test_workers_run_beside_one_another_and_no_more(engine: EngineSettings, tmp_path: Path) -> None:
    tasks = [Task(str(i), calls.meet, (tmp_path, 2)) for i in range(5)]
    times = [outcome.value for outcome in run(tasks, engine).values()]
    assert all(pid != os.getpid() for *_, pid in times)
    together = [sum(start <= moment < end for start, end, _ in times) for moment, *_ in times]
    assert max(together) == 2


def test_a_task_waits_for_its_needs_alone(engine: EngineSettings, tmp_path: Path) -> None:
    tasks = [
        Task("slow", calls.meet, (tmp_path, 2)),
        Task("quick", calls.add, (1,)),
        Task("after slow", calls.add, (1,), needs=("slow",)),
        Task("after quick", calls.meet, (tmp_path, 2), needs=("quick",)),
    ]
    outcomes = {outcome.task.name: outcome.value for outcome in run_tasks(tasks, engine)}
    assert next(iter(outcomes)) == "quick"
    assert outcomes["after quick"][0] < outcomes["slow"][1]


def test_threads_are_limited_before_anything_is_imported(
    engine: EngineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = run([Task("one", calls.environment)], engine)["one"].value
    assert found["torch_threads"] == 1
    assert {found[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_closing_ends_the_workers(engine: EngineSettings, tmp_path: Path) -> None:
    tasks = [Task("quick", calls.interval, (0.0,)), Task("hang", calls.hang, (tmp_path,))]
    outcomes = run_tasks(tasks, engine)
    assert next(outcomes).task.name == "quick"
    pid, child = pids(tmp_path)
    outcomes.close()
    assert gone(pid)
    if engine.name == "local":  # Ray leaves what a task has started to the task
        assert gone(child)
    else:
        os.kill(child, signal.SIGKILL)


def pids(folder: Path, seconds: float = 60) -> tuple[int, int]:
    """The processes that `hang` tells of."""
    end = time.monotonic() + seconds
    while not (folder / "pids").exists():
        assert time.monotonic() < end, "The task did not start."
        time.sleep(0.05)
    pid, child = (folder / "pids").read_text().split()
    return int(pid), int(child)


def gone(pid: int, seconds: float = 20) -> bool:
    """Whether a process ends soon; a zombie has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


CALLER = """
import sys
from pathlib import Path
sys.path.insert(0, {path!r})
import engine_calls
from rekd_edge.engines import EngineSettings, Task, run_tasks
if __name__ == "__main__":
    for outcome in run_tasks([Task("hang", engine_calls.hang, (Path({folder!r}),))], EngineSettings()):
        print(outcome)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
@pytest.mark.parametrize(("sign", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, None)])
def test_workers_end_with_their_caller(sign: signal.Signals, status: int | None, tmp_path: Path) -> None:
    code = CALLER.format(path=str(Path(calls.__file__).parent), folder=str(tmp_path))
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # shells let what runs in the background ignore it
    caller = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, preexec_fn=heed)
    pid, child = pids(tmp_path)
    caller.send_signal(sign)
    ended = caller.wait(20)
    assert status in (None, ended)
    assert gone(pid)
    assert gone(child)


def test_a_dead_task_is_found_though_its_fork_lives(tmp_path: Path) -> None:
    outcome = run([Task("fork", calls.fork_and_die, (tmp_path,))], EngineSettings())["fork"]
    assert "died 3 times (by SIGKILL)" in (outcome.error or "")
    assert len(list(tmp_path.iterdir())) == 3


def test_tasks_leave_standard_output_alone(engine: EngineSettings, capfd: pytest.CaptureFixture[str]) -> None:
    tasks = [Task("noise", calls.print_noise), Task("dead", calls.exit_silently)]
    assert run(tasks, engine)["noise"].value == "done"
    assert capfd.readouterr().out == ""

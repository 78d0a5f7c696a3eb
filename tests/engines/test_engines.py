"""Tasks on every engine: order, needs, errors, lost processes, room, and that nothing outlives the caller."""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import engine_calls as calls
import pytest

from rekd_edge.engines import EngineSettings, Outcome, Task, run_tasks
from rekd_edge.engines.local import LocalEngine
from rekd_edge.engines.scheduling import Ended, schedule
from rekd_edge.engines.tasks import Report, attempt, pack
from rekd_edge.errors import InputError

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


def test_devices_go_to_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices: tasks of one device each get one each, a task of two gets both, and other tasks see all."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    asked = {"a": 1, "b": 1, "c": 0, "d": 2}
    tasks = [Task(name, os.getenv, ("CUDA_VISIBLE_DEVICES",), gpus=gpus) for name, gpus in asked.items()]
    with closing(LocalEngine(4)) as engine:
        for task in tasks:
            engine.start(task)
        seen = {}
        while len(seen) < len(tasks):
            for end in engine.ended():
                assert end.report is not None
                assert end.report.value is not None
                seen[end.task.name] = pickle.loads(end.report.value)
    assert seen["a"] != seen["b"]
    assert {seen["a"], seen["b"]} == {"4", "7"}
    assert sorted(seen["d"].split(",")) == ["4", "7"]
    assert seen["c"] == "4,7"


def test_workers_wait_for_devices_and_not_for_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    one, large = Task("one", time.sleep, (60,), gpus=1), Task("large", time.sleep, (60,), cpus=1000)
    with closing(LocalEngine(8)) as engine:
        engine.start(one)
        assert engine.bears([one], one)
        engine.start(one)
        assert not engine.bears([one, one], one)
        assert engine.bears([one, one, large], large)
    with closing(LocalEngine(None)) as engine:
        assert not engine.bears([large], large)


def test_shares_fit_on_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two devices, each with a task of .6: a third fits on neither, though both together have .8 left."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    more, less = (Task(f"{share}", time.sleep, (60,), gpus=share) for share in (0.6, 0.4))
    with closing(LocalEngine(8)) as engine:
        for _ in range(2):
            assert engine.bears([], more)
            engine.start(more)
        assert not engine.bears([more, more], more)
        for _ in range(2):
            assert engine.bears([more, more], less)
            engine.start(less)
        assert not engine.bears([more, more, less, less], less)
        assert sorted(one.gpus for one in engine._running) == [("4",), ("4",), ("7",), ("7",)]


@needs_ray
@pytest.mark.parametrize(("has", "gets"), [({"GPU": 8.0}, 1.0), ({"CPU": 8.0}, 0.0)])
def test_a_task_gets_a_device_of_a_cluster_that_has_any(has: dict[str, float], gets: float) -> None:
    from rekd_edge.engines.ray import RayEngine

    engine = RayEngine.__new__(RayEngine)
    engine._share, engine._ray = None, SimpleNamespace(cluster_resources=lambda: has)
    assert engine._demand(Task("any", print, gpus=None)) == (1, gets)
    assert engine._demand(Task("half", print, gpus=0.5)) == (1, 0.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (EngineSettings("dask"), "There is no engine 'dask'; choose one of: local, ray."),
        (EngineSettings(workers=0), "0 workers cannot run anything; give --workers 1 or more."),
        (EngineSettings(address="10.0.0.1:6379"), "An address is that of a Ray cluster; give it with --engine ray."),
    ],
)
def test_wrong_settings_are_one_sentence(settings: EngineSettings, words: str) -> None:
    with pytest.raises(InputError) as error:
        run_tasks([Task("a", calls.add)], settings)
    assert str(error.value) == words


def test_ray_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "rekd-edge\[ray\]"'):
        list(run_tasks([Task("a", calls.add)], EngineSettings("ray")))


@pytest.mark.parametrize(
    "needs",
    [{"a": ("b",), "b": ("a",)}, {"a": ("a",)}, {"a": ("c",), "b": ()}, {"a": ("b",), "b": ("d",), "d": ("a",)}],
)
def test_needs_that_cannot_be_met_are_refused(needs: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match=r"task|circle"):
        run_tasks([Task(name, calls.add, needs=others) for name, others in needs.items()], EngineSettings())


class OneByOne:
    """An engine without processes: what started last ends first."""

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.running: list[Task] = []
        self.most = 0

    def bears(self, running: Sequence[Task], task: Task) -> bool:
        return sum(task.cpus for task in [*running, task]) <= self.cpus

    def start(self, task: Task) -> None:
        self.running.append(task)
        self.most = max(self.most, sum(task.cpus for task in self.running))

    def ended(self) -> list[Ended]:
        task = self.running.pop()
        return [Ended(task, attempt(pack(task)))]

    def close(self) -> None:
        raise NotImplementedError


def test_without_workers_tasks_fill_the_processors_in_order() -> None:
    engine = OneByOne(4)
    started: list[str] = []
    tasks = [Task(name, calls.add, (1,), cpus=cpus) for name, cpus in [("a", 2), ("b", 2), ("c", 9), ("d", 1)]]
    note: Callable[[Task], None] = lambda task: started.append(task.name)  # noqa: E731
    assert [outcome.value for outcome in schedule(tasks, engine, None, note)] == [1] * 4
    assert started == ["a", "b", "c", "d"]  # c is larger than the machine, and has it alone
    assert engine.most == 9


def test_tracebacks_are_shown_on_request(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for wanted in ("", "1"):
        monkeypatch.setenv("REKD_EDGE_TRACEBACK", wanted)
        list(schedule([Task("a", calls.broken)], OneByOne(1), 1, lambda task: None))
        assert ('raise KeyError("absent")' in capfd.readouterr().err) == bool(wanted)


def test_a_call_of_the_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls.add, "__module__", "__main__")
    with pytest.raises(ValueError, match="workers need it in a module"):
        list(run_tasks([Task("a", calls.add)], EngineSettings()))


def test_a_report_says_what_was_raised() -> None:
    assert attempt(pack(Task("a", calls.wrong_input))) == Report(error="The input is wrong; mend it.")

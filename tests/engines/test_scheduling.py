"""Which task runs when: needs, processors, devices, and what is refused."""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from types import SimpleNamespace

import engine_calls as calls
import pytest

from rekd_edge.engines import EngineSettings, Task, run_tasks
from rekd_edge.engines.local import LocalEngine
from rekd_edge.engines.scheduling import TaskEnd, schedule
from rekd_edge.engines.tasks import Report, attempt, pack
from rekd_edge.errors import InputError

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


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
            for end in engine.wait():
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
        assert engine.has_room([one], one)
        engine.start(one)
        assert not engine.has_room([one, one], one)
        assert engine.has_room([one, one, large], large)
    with closing(LocalEngine(None)) as engine:
        assert not engine.has_room([large], large)


def test_shares_fit_on_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two devices, each with a task of .6: a third fits on neither, though both together have .8 left."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    more, less = (Task(f"{share}", time.sleep, (60,), gpus=share) for share in (0.6, 0.4))
    with closing(LocalEngine(8)) as engine:
        for _ in range(2):
            assert engine.has_room([], more)
            engine.start(more)
        assert not engine.has_room([more, more], more)
        for _ in range(2):
            assert engine.has_room([more, more], less)
            engine.start(less)
        assert not engine.has_room([more, more, less, less], less)
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

    def has_room(self, running: Sequence[Task], task: Task) -> bool:
        return sum(task.cpus for task in [*running, task]) <= self.cpus

    def start(self, task: Task) -> None:
        self.running.append(task)
        self.most = max(self.most, sum(task.cpus for task in self.running))

    def wait(self) -> list[TaskEnd]:
        task = self.running.pop()
        return [TaskEnd(task, attempt(pack(task)))]

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

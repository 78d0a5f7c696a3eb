"""Tasks on Ray: on a running cluster, or on this machine alone, where Ray starts and ends with the engine.

Ray sends a task to a node with free processors and devices. When a process or a node dies, the task is submitted
again and resumes from its own files, which lie on a file system that the nodes share.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rekd_edge.engines.scheduling import TaskEnd
from rekd_edge.engines.tasks import Task, attempt, pack, processors, thread_limits, worker_environment
from rekd_edge.errors import InputError
from rekd_edge.progress import say

__all__ = ["RayEngine"]

STORE = 100 * 2**20  # bytes of shared memory: tasks pass names and figures, and read data from files


class RayEngine:
    """Ray at `address`; without one, on this machine alone, with room for `workers`.

    Raises:
        InputError: Ray does not answer at `address`.
    """

    def __init__(self, workers: int | None, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task without GPUs keeps its environment

        if address is None:
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray listens on the loopback alone

        import ray

        self._ray = ray
        self._own = not ray.is_initialized()
        self._workers = workers
        self._share: int | None = None  # processors a worker, where this machine is all there is

        self._references: dict[Any, Task] = {}
        if self._own and address is None:
            self._share = processors() // (workers or 1)
            cpus = max(processors(), workers or 1)
            self._init(address="local", num_cpus=cpus, object_store_memory=STORE, include_dashboard=False)
        elif self._own:
            try:
                self._init(address=address)
            except Exception as error:  # anything between here and the cluster
                raise InputError(
                    f"No Ray cluster answers at {address} ({type(error).__name__}); correct --address (and set "
                    "RAY_AUTH_MODE=token where the cluster asks for one), or leave it out to start Ray on this machine."
                ) from error

        self._attempt = ray.remote(max_retries=0)(attempt)  # the schedule counts deaths and restarts tasks

    def _init(self, **options: Any) -> None:
        # Ray prints the death of a worker on standard output, which is the caller's; the schedule reports it anyway.
        self._ray._private.worker.listen_error_messages = lambda worker, threads_stopped: None
        self._ray.init(logging_level=logging.ERROR, log_to_driver=False, job_config=self._job(), **options)

    def _job(self) -> Any:
        """Keep the caller's working directory off the import path of workers.

        Ray adds it unless a job says that it brings a directory of its own.
        """

        class IsolatedJob(self._ray.job_config.JobConfig):  # type: ignore[name-defined]
            def _runtime_env_has_working_dir(self) -> bool:
                return True

        return IsolatedJob()

    def has_room(self, running: Sequence[Task], task: Task) -> bool:
        """Whether the cluster has the resources now; with a given number of workers it may queue tasks, or grow."""
        if self._workers is not None:
            return True
        tasks = [self._demand(task) for task in (*running, task)]
        has = self._ray.cluster_resources()
        cpus, gpus = (sum(demand) for demand in zip(*tasks, strict=True))
        return cpus <= has.get("CPU", 0) and gpus <= has.get("GPU", 0)

    def start(self, task: Task) -> None:
        """Submit a task."""
        cpus, gpus = self._demand(task)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            say(f"{task.name} waits for a node with {cpus} processors and {gpus:g} GPUs; the cluster has none yet.")

        environment = thread_limits(cpus) | {"PYTHONSAFEPATH": "1"} if self._share is None else worker_environment(cpus)
        call = self._attempt.options(
            name=task.name, num_cpus=cpus, num_gpus=gpus, runtime_env={"env_vars": environment}
        )
        self._references[call.remote(pack(task))] = task

    def wait(self) -> list[TaskEnd]:
        """Wait for reports, or for errors of Ray itself, which mean that the process died."""
        first, _ = self._ray.wait(list(self._references), num_returns=1)
        ends = []

        for reference in first:
            task = self._references.pop(reference)
            try:
                ends.append(TaskEnd(task, self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                ends.append(TaskEnd(task, cause=" ".join((str(error).strip() or type(error).__name__).split())[:200]))

        return ends

    def close(self) -> None:
        """Cancel what still runs, and end Ray where this engine started it."""
        for reference in self._references:
            with suppress(Exception):
                self._ray.cancel(reference, force=True)
        self._references.clear()
        if self._own:
            self._ray.shutdown()

    def _demand(self, task: Task) -> tuple[int, float]:
        """Processors and GPUs of a task; on this machine alone, no more of them than there are."""
        gpus = self._ray.cluster_resources().get("GPU", 0.0)
        if self._share is None:
            return task.cpus, min(1.0, gpus) if task.gpus is None else task.gpus
        return max(1, min(task.cpus, self._share)), min(1.0 if task.gpus is None else task.gpus, gpus)

"""One run trained by several processes: each takes its rows of every batch, the first alone writes.

`torchrun -m rekd_edge train …` and `accelerate launch -m rekd_edge train …` start them, one for each GPU (nccl) or on a
CPU (gloo), and say in the environment who is who. Outside such a launch there is one process, and all of this is idle.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset

from rekd_edge.errors import InputError

__all__ = [
    "ProcessShard",
    "is_first",
    "join",
    "leave",
    "mean_over_processes",
    "on_first",
    "rank",
    "rows_of",
    "summed",
    "wait_for_all",
    "world",
]

PATIENCE = timedelta(days=1)
"""How long processes wait for each other: the first evaluates alone, and may have large data to read."""

Result = TypeVar("Result")
_alone = ContextVar("alone", default=False)
"""Whether the first process is at work that the others wait for."""


def join() -> None:
    """Meet the other processes that were launched with this one, if there are any and this has not happened yet.

    Raises:
        InputError: there are more processes than GPUs.
    """
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return

    if not torch.cuda.is_available():
        dist.init_process_group("gloo", timeout=PATIENCE)
        return

    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if int(os.environ.get("LOCAL_WORLD_SIZE", local + 1)) > gpus:
        raise InputError(f"There are more processes on this machine than GPUs ({gpus}); launch one for each.")

    torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)


def leave() -> None:
    """Part from the other processes at the end of the work."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    """How many processes are at work together; 1 within `on_first`."""
    return dist.get_world_size() if dist.is_initialized() and not _alone.get() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait_for_all() -> None:
    """Wait until all processes have come this far."""
    if world() > 1:
        dist.barrier()


def is_first() -> bool:
    """Whether this is the one that writes."""
    return rank() == 0


def on_first(work: Callable[[], Result]) -> Result:
    """Work that the first process does alone: what it gives, or the error that it raises, in all of them."""
    if world() == 1:
        return work()

    said: list[Any] = [None, None]
    if is_first():
        token = _alone.set(True)
        try:
            said[0] = work()
        except Exception as error:
            said[1] = error
        finally:
            _alone.reset(token)

    dist.broadcast_object_list(said, src=0)
    if said[1] is not None:
        raise said[1]

    return said[0]


def rows_of(size: int, processes: int, process: int) -> range:
    """The rows of a batch of so many that a process takes: neighbouring ones, as many as the others or one more.

    Where there are fewer rows than processes, all take all of them: the mean over processes is that over rows again.
    """
    if size < processes:
        return range(size)
    return range(process * size // processes, (process + 1) * size // processes)


class ProcessShard(Dataset[dict[str, Any]]):
    """A data set of which each batch holds the rows of one process alone.

    Items have a `place`, their row in the whole batch, and a `weight`, by which the process's mean loss counts so that
    the mean over processes is that over all rows.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.processes, self.process = world(), rank()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """This process's items of a whole batch."""
        rows = rows_of(len(indices), self.processes, self.process)
        weight = np.float32(len(rows) * self.processes / max(len(indices), 1) if len(indices) >= self.processes else 1)
        chosen = [indices[row] for row in rows]
        together = getattr(self.dataset, "__getitems__", None)
        items = [self.dataset[index] for index in chosen] if together is None else together(chosen)
        return [{**item, "place": row, "weight": weight} for item, row in zip(items, rows, strict=True)]


class _Sum(torch.autograd.Function):
    """Σ over processes; the gradient of what each of them makes of it is summed too."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, with its gradient, for losses that are no means over examples.

    Every process must ask for the same sums in the same order. DDP's mean over processes gives the gradient of one
    process that has the whole batch.
    """
    return values if world() == 1 else _Sum.apply(values)


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean over all processes, without gradient."""
    if world() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / world()

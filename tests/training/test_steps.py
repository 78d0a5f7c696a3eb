"""What a training step may not do: make the host wait for the device, or remember more than it was told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rekd_edge.training.objectives import Context
from rekd_edge.training.teacher import Teacher, Teachers, read_teacher
from rekd_edge.training.trainer import RationaleTrainer

aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense,  # .item(), bool(), int()
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.repeat_interleave,
    aten.lift_fresh,  # numbers from the host: a copy that is not from pinned memory
    aten._pin_memory,
}


class NoWaiting(TorchDispatchMode):
    """Raises where a GPU's host would wait: for a value, for a shape that depends on values, for a copy."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        packet = function.overloadpacket
        assert packet not in WAITS, function
        if packet in (aten.index, aten.index_put, aten.index_put_):
            assert not any(place is not None and place.dtype == torch.bool for place in args[1]), "index by a mask"
        if packet is aten._to_copy:
            assert given.get("device") is None, "a copy between devices"
        return function(*args, **given)


@pytest.fixture
def make_trainer(settings: Callable, prepared: Callable, tmp_path: Path) -> Callable[..., RationaleTrainer]:
    def make(task: str, method: str, teachers: Teachers | None = None, **changes: Any) -> RationaleTrainer:
        config = settings(task, method, **{"log_steps": 100, **changes})
        model, preprocessing, data = prepared(config)
        config = config.resolved(task)
        grid = None if preprocessing.image is None else preprocessing.image.grid
        return RationaleTrainer(
            model,
            Context(config, task, tuple(data.label_names), preprocessing.max_length, grid, teachers),
            tmp_path,
            preprocessing.features(data.split("train"), augment=config.data.augment),
            preprocessing.features(data.split("validation")),
            preprocessing.collator(),
            [],
        )

    return make


def steps(trainer: RationaleTrainer, count: int = 2) -> Iterator[dict[str, Tensor]]:
    batches = iter(trainer.get_train_dataloader())
    for step in range(count):
        trainer.state.global_step, trainer.state.max_steps = step, count
        yield next(batches)


def learn(trainer: RationaleTrainer, batch: dict[str, Tensor]) -> None:
    """What Trainer does in a step before torch's optimiser, apart from its bookkeeping."""
    trainer.model.train().zero_grad()
    trainer.compute_loss(trainer.model, batch).backward()
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "cls": ("text", "cls", {}),
    "control": ("text", "control", {}),
    "re": ("text", "re", {"lambda_contiguity": 0.1, "class_ratios": {"neg": 0.1, "pos": 0.2}}),
    "re, words": ("text", "re", {"select_words": True, "min_selected": 2, "max_selected": 9}),
    "re, dropping": ("text", "re", {"mask_mode": "drop", "selection_loss": "batch_mean"}),
    "re, recomputed": ("text", "re", {"gradient_checkpointing": True}),
    "re, images": ("image", "re", {"lambda_contiguity": 0.1, "data__augment": True}),
    "re, cnn": ("text", "re", {"backbone": "cnn:random:bert-nano"}),
    "re, resnet": ("image", "re", {"backbone": "resnet:random:vit-nano"}),
    "plmr": ("text", "plmr", {"backbone": "random:bert-micro", "layers": 4, "generator_layers": 3}),
    "rtp, first": ("text", "rtp", {"rtp__warmup_epochs": 2}),
    "rtp": ("text", "rtp", {"rtp__warmup_epochs": 0}),
}


@pytest.mark.parametrize("case", CASES)
def test_host_never_waits_for_the_device_in_a_step(case: str, make_trainer: Callable[..., RationaleTrainer]) -> None:
    task, method, changes = CASES[case]
    trainer = make_trainer(task, method, **changes)
    first, second = steps(trainer)
    learn(trainer, first)  # what is copied to the device once
    with NoWaiting():
        learn(trainer, second)


@pytest.mark.parametrize("task", ["text", "image"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"teacher_labels": "hard"}, {"gumbel_noise": "shared", "kd_temperature": 2.0}, {"teacher_mask": "student"}],
)
@pytest.mark.parametrize("cached", [True, False])
def test_host_never_waits_for_a_teacher(
    task: str, cached: bool, changes: dict[str, Any], runs: Callable, make_trainer: Callable[..., RationaleTrainer]
) -> None:
    folder = runs(task, "re")
    facts = read_teacher(str(folder), allow_weak=True)
    teachers = Teachers([Teacher(facts, torch.device("cpu"), facts.config.image)])
    asked = not cached or "teacher_mask" in changes
    trainer = make_trainer(task, "rekd", teachers if asked else None, teacher=str(folder), **changes)
    first, second = steps(trainer)
    if cached:
        first, second = ({**batch, **teachers.targets(batch)} for batch in (first, second))
    learn(trainer, first)
    with NoWaiting():
        learn(trainer, second)


def test_waiting_is_noticed() -> None:
    values = torch.arange(3.0)
    for wait in (values.sum().item, lambda: values[values > 1], lambda: torch.tensor([1.0]) + values):
        with pytest.raises(AssertionError), NoWaiting():
            wait()


def test_trainer_itself_waits_for_no_loss(make_trainer: Callable[..., RationaleTrainer]) -> None:
    assert not make_trainer("text", "cls").args.logging_nan_inf_filter


class FusedAttention(TorchDispatchMode):
    """Counts attention by kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "scaled_dot_product" in str(function):
            self.seen.append(str(function.overloadpacket).rpartition(".")[2])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("task", "layers"), [("text", 2), ("image", 2)])
def test_layers_attend_by_a_fused_kernel(task: str, layers: int, make_trainer: Callable[..., RationaleTrainer]) -> None:
    trainer = make_trainer(task, "re")
    (batch,) = steps(trainer, 1)
    with FusedAttention() as attention:
        trainer.compute_loss(trainer.model.train(), batch)
    assert attention.seen == ["_scaled_dot_product_flash_attention_for_cpu"] * layers

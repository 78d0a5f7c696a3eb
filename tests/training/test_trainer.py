"""What the Trainer is told: learning rates, frozen weights, temperature, arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from rekd_edge.training.objectives import Context
from rekd_edge.training.stages import freeze_embeddings
from rekd_edge.training.trainer import RationaleTrainer, training_arguments, uses_bf16


@pytest.fixture
def make_trainer(settings: Callable, prepared: Callable, tmp_path: Path) -> Callable[..., RationaleTrainer]:
    def make(task: str, method: str, **changes: Any) -> RationaleTrainer:
        config = settings(task, method, **changes)
        model, preprocessing, data = prepared(config)
        config = config.resolved(task)
        freeze_embeddings(model, config.freeze_embeddings)
        return RationaleTrainer(
            model,
            Context(config, task, tuple(data.label_names), preprocessing.max_length),
            tmp_path,
            preprocessing.features(data.split("train")),
            preprocessing.features(data.split("validation")),
            preprocessing.collator(),
            [],
        )

    return make


@pytest.mark.parametrize("task", ["text", "image"])
def test_heads_learn_at_their_own_rate(task: str, make_trainer: Callable[..., RationaleTrainer]) -> None:
    trainer = make_trainer(task, "re", learning_rate=1e-4, head_learning_rate=3e-3, weight_decay=0.25)
    rates = {
        id(weight): (group["lr"], group["weight_decay"])
        for group in trainer.create_optimizer().param_groups
        for weight in group["params"]
    }
    heads = {"generator.head", "predictor.classifier"}
    for name, weight in trainer.rationale_model.named_parameters():
        is_head = ".".join(name.split(".")[:2]) in heads
        assert rates.pop(id(weight)) == (3e-3 if is_head else 1e-4, 0.25), name
    assert not rates


@pytest.mark.parametrize(
    ("frozen", "expected"),
    [("none", set()), ("generator", {"generator"}), ("all", {"generator", "predictor"})],
)
@pytest.mark.parametrize("task", ["text", "image"])
def test_optimizer_leaves_frozen_embeddings_out(
    task: str, frozen: str, expected: set[str], make_trainer: Callable[..., RationaleTrainer]
) -> None:
    trainer = make_trainer(task, "re", freeze_embeddings=frozen)
    trained = {id(weight) for group in trainer.create_optimizer().param_groups for weight in group["params"]}
    left_out = {name for name, weight in trainer.rationale_model.named_parameters() if id(weight) not in trained}
    embedding = {"text": ["word_embeddings.weight"], "image": [f"projection.{part}" for part in ("weight", "bias")]}
    assert left_out == {
        name
        for name, _ in trainer.rationale_model.named_parameters()
        if name.split(".")[0] in expected and any(name.endswith(end) for end in embedding[task])
    }
    assert bool(left_out) == bool(expected)


def test_temperature_falls_with_the_steps_of_the_run(make_trainer: Callable[..., RationaleTrainer]) -> None:
    trainer = make_trainer("image", "re", temperature_refresh=10, temperature_start=4.0, temperature_end=1.0)
    trainer.state.max_steps = 100
    for step, expected in [(0, 4.0), (9, 4.0), (50, 2.0), (59, 2.0), (100, 1.0)]:
        trainer.state.global_step = step
        assert trainer.temperature == pytest.approx(expected)


def test_loss_terms_are_logged_one_by_one(make_trainer: Callable[..., RationaleTrainer]) -> None:
    trainer = make_trainer("image", "re", epochs=1, log_steps=2)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 2  # 4 steps
    assert {"task", "selection", "re", "sampled_ratio", "argmax_ratio", "temperature"} <= logged[0].keys()
    for entry in logged:
        expected = entry["task"] + trainer.context.config.lambda_select * entry["selection"]
        assert entry["re"] == pytest.approx(expected, rel=1e-4)
        assert entry["loss"] == pytest.approx(entry["re"], abs=1e-3)


def test_arguments_follow_the_recipe(settings: Callable, tmp_path: Path) -> None:
    changes = {"epochs": 3, "gradient_accumulation": 2, "warmup_ratio": 0.25, "lr_scheduler": "constant", "seed": 7}
    arguments = training_arguments(settings("text", "re", **changes).resolved("text"), tmp_path, 64)
    assert arguments.num_train_epochs == 3
    assert arguments.gradient_accumulation_steps == 2
    assert arguments.warmup_steps == round(0.25 * 3 * 2)
    assert arguments.lr_scheduler_type == "constant_with_warmup"
    assert arguments.seed == 7
    assert arguments.metric_for_best_model == "loss"
    assert not arguments.greater_is_better
    assert arguments.load_best_model_at_end
    assert not arguments.bf16  # the settings say fp32


@pytest.mark.parametrize(
    ("processor", "fast"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({}, False)]
)
def test_bf16_is_taken_where_the_processor_multiplies_it(
    processor: dict[str, bool], fast: bool, settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert uses_bf16(settings("text", "re", precision="auto")) == fast
    assert uses_bf16(settings("text", "re", precision="bf16"))
    assert not uses_bf16(settings("text", "re", precision="fp32"))
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in older releases
    assert not uses_bf16(settings("text", "re", precision="auto"))


class GradientNorm(TrainerCallback):
    """Measures the gradient that the optimiser is given, in the first step."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        gradients = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
        self.norm = torch.cat(gradients).norm().item()
        control.should_training_stop = True


def test_a_limit_of_zero_clips_no_gradient(make_trainer: Callable[..., RationaleTrainer]) -> None:
    norms = {}
    for limit in (0.0, 1e-3, 1e9):
        torch.manual_seed(0)
        trainer, measured = make_trainer("text", "re", max_grad_norm=limit, precision="fp32"), GradientNorm()
        trainer.add_callback(measured)
        trainer.train()
        norms[limit] = measured.norm
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-2)
    assert norms[0.0] == norms[1e9] > 0.01


def test_teachers_have_noise_of_their_own(make_trainer: Callable[..., RationaleTrainer]) -> None:
    trainer = make_trainer("text", "rekd", teacher="a-run", batch_size=4)
    batch = next(iter(trainer.get_train_dataloader()))
    _, ours, theirs = trainer._drawn(batch)
    assert ours is not None
    assert theirs is not None
    assert ours.shape == theirs.shape == (*batch["input_ids"].shape, 2)
    together = torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]
    assert together.abs() < 0.2  # 1 if the teachers were given the student's
    assert theirs.std().item() == pytest.approx(1.28, abs=0.2)  # of a Gumbel distribution, π / √6

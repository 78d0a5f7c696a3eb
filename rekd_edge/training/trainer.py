"""The Hugging Face Trainer with a method's objective, one temperature and calibrated deterministic evaluation."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from rekd_edge.data.features import TextFeatures
from rekd_edge.modeling import RationaleModel
from rekd_edge.training.annealing import temperature_at
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.inference import batches, dev_metrics, predict
from rekd_edge.training.objectives import Context, Moment, objective_of
from rekd_edge.training.sampling import LengthBuckets

__all__ = ["RationaleTrainer", "autocast_of", "training_arguments"]


class RationaleTrainer(Trainer):
    """Minimises the objective of `context.config.method`; evaluates by deterministic, calibrated masks on dev data."""

    def __init__(
        self,
        model: RationaleModel,
        context: Context,
        checkpoints: Path,
        train_dataset: Dataset,
        dev_dataset: Dataset,
        collate: Any,
        callbacks: list[TrainerCallback],
    ) -> None:
        config = context.config
        callbacks = [*callbacks, TimedCheckpoints(config.checkpoint_minutes)]
        if config.early_stopping is not None:
            callbacks.append(EarlyStoppingCallback(config.early_stopping))
        super().__init__(
            model=model,
            args=training_arguments(config, checkpoints, len(train_dataset)),  # type: ignore[arg-type]
            train_dataset=train_dataset,
            eval_dataset=dev_dataset,
            data_collator=collate,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)  # the display callbacks say it better
        self.rationale_model = model
        self.context = context
        self._terms: dict[str, list[Tensor]] = defaultdict(list)

    @property
    def temperature(self) -> float:
        """τ at the current step (equation 10)."""
        config = self.context.config
        return temperature_at(
            self.state.global_step,
            self.state.max_steps,
            config.temperature_start,
            config.temperature_end,
            config.temperature_refresh,
        )

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The method's loss; its terms are kept for the next log."""
        moment = Moment(self.temperature, self.state.global_step / max(self.state.max_steps, 1))
        objective = objective_of(self.context.objective or self.context.config.method)
        terms = objective(model, inputs, moment, self.context)
        for name, value in terms.items():
            if name != "loss":  # Trainer logs that one
                self._terms[name].append(value.detach())
        return terms["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the loss terms, averaged since the last log, and the temperature."""
        if "loss" in logs:
            logs |= {name: torch.stack(values).mean().item() for name, values in self._terms.items()}
            logs["temperature"] = self.temperature
            self._terms.clear()
        super().log(logs, *args, **kwargs)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Sampler[int] | None:
        """Texts of like length in a batch, unless all are padded to one length; images in random order."""
        config = self.context.config
        if isinstance(self.train_dataset, TextFeatures) and not config.count_all_positions:
            return LengthBuckets(self.train_dataset.lengths, self.args.train_batch_size, config.seed)
        return super()._get_train_sampler(*args, **kwargs)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Metrics on dev data; recalibrates the margin bias where calibration is on."""
        with autocast_of(self.context.config, self.args.device)():  # the run's last word is in full precision
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.dev_metrics().items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def dev_metrics(self) -> dict[str, Any]:
        """`loss` (L_RE), accuracy, rationale ratio and more on dev data, with deterministic masks."""
        model = self.rationale_model
        predictions = predict(model, self.dev_loader(), self.context.config.calibrate)
        return dev_metrics(predictions, model.config, self.context)

    def dev_loader(self) -> DataLoader:
        """Dev data in order."""
        assert isinstance(self.eval_dataset, Dataset)
        return batches(self.eval_dataset, self.data_collator, 2 * self.args.per_device_train_batch_size)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """AdamW with a learning rate of its own for the new heads; frozen weights are left out."""
        if self.optimizer is None:
            config = self.context.config
            heads: list[Tensor] = []
            encoders: list[Tensor] = []
            for name, weight in self.rationale_model.named_parameters():
                if weight.requires_grad:
                    (encoders if ".encoder." in name else heads).append(weight)
            groups = [
                {"params": encoders, "lr": config.learning_rate},
                {"params": heads, "lr": config.head_learning_rate or config.learning_rate},
            ]
            self.optimizer = torch.optim.AdamW(
                groups, betas=(0.9, config.adam_beta2), weight_decay=config.weight_decay or 0.0, fused=True
            )
        return self.optimizer


class TimedCheckpoints(TrainerCallback):
    """Asks for a checkpoint where the last one is so many minutes old, besides those of each epoch's end."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self._last = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What was loaded is safe."""
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the interval, save."""
        if time.monotonic() - self._last >= self.seconds:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Whoever asked for it."""
        self._last = time.monotonic()


def uses_bf16(config: TrainingConfig) -> bool:
    """Whether a run computes in bf16: where it was asked for, or the device multiplies it faster than fp32."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16"))


def autocast_of(config: TrainingConfig, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """The precision of a run's steps, for what happens outside Trainer's."""
    return partial(torch.autocast, device.type, torch.bfloat16, enabled=uses_bf16(config))


def training_arguments(config: TrainingConfig, checkpoints: Path, examples: int) -> TrainingArguments:
    """Trainer's arguments for a resolved run on so many training examples; resume files go to `checkpoints`."""
    epochs = config.epochs or 1
    steps = epochs * math.ceil(examples / (config.batch_size * config.gradient_accumulation))
    warmup = round(config.warmup_ratio * steps)
    scheduler = "constant_with_warmup" if config.lr_scheduler == "constant" else config.lr_scheduler
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=scheduler,
        warmup_steps=warmup,
        max_grad_norm=config.max_grad_norm,
        bf16=uses_bf16(config),
        use_cpu=not torch.accelerator.is_available(),  # Trainer refuses bf16 on a CPU otherwise
        seed=config.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        logging_steps=config.log_steps,
        disable_tqdm=True,
        report_to=config.report_to,
        remove_unused_columns=False,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=cuda,
        dataloader_persistent_workers=config.workers > 0,
    )

"""The Hugging Face Trainer with a method's objective, one temperature and calibrated deterministic evaluation."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from rekd_edge.modeling import RationaleModel
from rekd_edge.training.annealing import temperature_at
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.inference import batches, dev_metrics, predict
from rekd_edge.training.objectives import Context, Moment, objective_of

__all__ = ["RationaleTrainer", "training_arguments"]


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
        if config.early_stopping is not None:
            callbacks = [*callbacks, EarlyStoppingCallback(config.early_stopping)]
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

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Metrics on dev data; recalibrates the margin bias where calibration is on."""
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
            fused = self.args.device.type == "cuda"
            betas = (0.9, config.adam_beta2)
            self.optimizer = torch.optim.AdamW(
                groups, betas=betas, weight_decay=config.weight_decay or 0.0, fused=fused
            )
        return self.optimizer


def training_arguments(config: TrainingConfig, checkpoints: Path, examples: int) -> TrainingArguments:
    """Trainer's arguments for a resolved run on so many training examples; resume files go to `checkpoints`."""
    epochs = config.epochs or 1
    steps = epochs * math.ceil(examples / (config.batch_size * config.gradient_accumulation))
    warmup = round(config.warmup_ratio * steps)
    scheduler = "constant_with_warmup" if config.lr_scheduler == "constant" else config.lr_scheduler
    cuda = torch.cuda.is_available()
    bf16 = config.precision == "bf16" or (config.precision == "auto" and cuda and torch.cuda.is_bf16_supported())
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=scheduler,
        warmup_steps=warmup,
        max_grad_norm=config.max_grad_norm,
        bf16=bf16,
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

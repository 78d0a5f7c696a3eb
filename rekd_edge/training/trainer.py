"""The Hugging Face Trainer with a method's objective, one temperature and calibrated deterministic evaluation."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import seed_worker

from rekd_edge.data.features import ImageFeatures, TextFeatures
from rekd_edge.errors import FailureError, InputError, RekdEdgeError
from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.selection import gumbel_noise
from rekd_edge.training.annealing import temperature_at
from rekd_edge.training.augmentation import augment, draw_crops
from rekd_edge.training.checkpoints import choose_checkpoint, clear_place, loading, read_state, seal
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.inference import Masks, batches, dev_metrics, predict
from rekd_edge.training.objectives import PREDICTOR, Context, Moment, objective_of
from rekd_edge.training.processes import ProcessShard, mean_over_processes, on_first, rank, wait_for_all, world
from rekd_edge.training.sampling import LengthBuckets

__all__ = ["RationaleTrainer", "autocast_of", "training_arguments"]

ASKED_EVERY = 10
"""Steps."""


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
        # crops that the data set draws come from a stream that only an epoch's start restores
        self._draws_alone = isinstance(train_dataset, ImageFeatures) and train_dataset.augments_alone
        if not self._draws_alone:
            callbacks = [*callbacks, TimedCheckpoints(config.checkpoint_minutes)]
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
        self.checkpoints = checkpoints
        self.context = context
        self._terms: dict[str, list[Tensor]] = defaultdict(list)
        self._random = torch.Generator(self.args.device)
        self._last = (-1, 0)

        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable()

        if config.compile:
            torch.compiler.reset()  # what was compiled for another stage's model would be guarded against
            model.compile(dynamic=True)

        if rank():  # processes share what is sampled, not what is dropped out
            set_seed(config.seed + rank())

    def fit(self) -> None:
        """Train to the end, from the newest checkpoint that verifies, and load the weights of the best epoch.

        Raises:
            InputError: a row of the data cannot be read, or a checkpoint not be loaded.
            FailureError: a process that loads data died.
        """
        processes = world()
        steps = total_steps(self.context.config, len(self.train_dataset))  # type: ignore[arg-type]

        last = on_first(lambda: choose_checkpoint(self.checkpoints, processes, steps))
        if last is not None and self._had_stopped(last):
            self.state = TrainerState.load_from_json(str(last / TRAINER_STATE_NAME))
            self._load_best_model()
            return

        try:
            self.train(resume_from_checkpoint=None if last is None else str(last))
        except RekdEdgeError as error:
            raise type(error)(_own_sentence(error)) from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise FailureError(
                f"A process that loads data died ({str(error).splitlines()[0].rstrip('.')}); set fewer workers or a "
                "smaller batch_size, and --resume."
            ) from error

    def _had_stopped(self, checkpoint: Path) -> bool:
        """Whether training ended early at a checkpoint, and only what follows was cut off."""
        config = self.context.config
        if config.early_stopping is None:
            return False
        figure, best = f"eval_{config.select_by}", max if config.select_by == "accuracy" else min
        dev = [entry[figure] for entry in read_state(checkpoint)["log_history"] if figure in entry]
        return bool(dev) and len(dev) - 1 - dev.index(best(dev)) >= config.early_stopping

    def _determine_best_metric(self, *args: Any, **kwargs: Any) -> bool:
        """Whether these weights are the best so far; those of a stage in which a method has yet to begin never are."""
        config = self.context.config
        has_begun = getattr(method_of(config.method).training(), "has_begun", None)
        if has_begun is not None and not has_begun(self.state.epoch, config):
            return False
        return super()._determine_best_metric(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save, and seal the checkpoint when all processes have written their part."""
        checkpoint = self.checkpoints / f"checkpoint-{self.state.global_step}"
        on_first(lambda: clear_place(checkpoint))
        super()._save_checkpoint(*args, **kwargs)
        wait_for_all()
        on_first(lambda: seal(checkpoint, self.state.best_model_checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        with loading(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with loading(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with loading(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        """Load the weights of the best checkpoint, which a moved run has at another path than its state says."""
        best = self.checkpoints / Path(str(self.state.best_model_checkpoint)).name
        self.state.best_model_checkpoint = str(best)
        if not best.is_dir():  # Trainer itself would go on with the last weights
            raise InputError(f"The best checkpoint {best} is gone; train with --resume again.")
        with loading(str(best)):
            super()._load_best_model()

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
        batch, noise, teacher_noise = self._drawn(inputs)
        progress = self.state.global_step / max(self.state.max_steps, 1)
        moment = Moment(self.temperature, progress, noise, teacher_noise)
        objective = objective_of(self.context.objective or self.context.config.method)
        weight = batch["weight"][0] if "weight" in batch else 1.0  # of this process's rows
        self.rationale_model.count_loss_as(weight / getattr(self, "current_gradient_accumulation_steps", 1))
        terms = objective(model, batch, moment, self.context)

        if "weight" in batch:
            terms = {name: value * weight for name, value in terms.items()}

        for name, value in terms.items():
            if name != "loss":  # Trainer logs that one
                self._terms[name].append(value.detach().float())

        return terms["loss"]

    def _drawn(self, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
        """The batch with its images augmented, the noise of the model and that of the teachers.

        Everything is drawn on the device for the longest whole batch there may be, from a generator that seed and step
        set, and cut to this batch: it depends neither on the number of processes nor on padding, and a resumed run
        draws what an uninterrupted one does.
        """
        config, step = self.context.config, self.state.global_step
        self._last = step, self._last[1] + 1 if self._last[0] == step else 0
        key = np.random.SeedSequence((config.seed, *self._last)).generate_state(1)[0]
        random = self._random.manual_seed(int(key))
        rows: Tensor | slice = inputs.get("place", slice(len(inputs["labels"])))

        if "images" in inputs:
            assert isinstance(self.train_dataset, ImageFeatures)
            crops = draw_crops(config.batch_size, random).of(rows)
            inputs = {**inputs, "pixel_values": augment(inputs["images"], crops, self.train_dataset.settings)}

        if "pixel_values" in inputs:
            length = longest = math.prod(self.rationale_model.grid(inputs["pixel_values"]))
        else:
            length = inputs["input_ids"].shape[1]
            longest = max(length, self.context.max_length or 0)

        noise = self.rationale_model.draw_noise(config.batch_size, longest, random)
        if noise is not None:
            noise = noise[rows][..., :length, :].clone()  # no view: torch.compile would guard its base

        teacher_noise = None
        if config.teacher:
            shape = config.batch_size, longest, 2
            teacher_noise = gumbel_noise(torch.empty(shape, device=random.device), random)[rows, :length]

        return inputs, noise, teacher_noise

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the loss terms, averaged since the last log, and the temperature."""
        if "loss" in logs:
            means = torch.stack([torch.stack(values).mean() for values in self._terms.values()])
            logs |= dict(zip(self._terms, mean_over_processes(means).tolist(), strict=True))
            logs["temperature"] = self.temperature
            self._terms.clear()
        super().log(logs, *args, **kwargs)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Sampler[int] | None:
        """Texts of like length in a batch, unless all are padded to one length; images in random order."""
        config = self.context.config
        if isinstance(self.train_dataset, TextFeatures) and not config.count_all_positions:
            return LengthBuckets(self.train_dataset.lengths, config.batch_size, config.seed)
        return super()._get_train_sampler(*args, **kwargs)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Metrics on dev data; recalibrates the margin bias where calibration is on."""
        with autocast_of(self.context.config, self.args.device)():  # the run's last word is in full precision
            found = self.dev_metrics(self.context.config.dev_masks)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def dev_metrics(self, masks: Masks = "deterministic") -> dict[str, Any]:
        """`loss` (L_RE), accuracy, rationale ratio and more on dev data, with `deterministic` or `sampled` masks.

        The first process measures and calibrates; the others take its word.
        """
        model = self.rationale_model

        def measured() -> tuple[dict[str, Any], float, dict[str, Any]]:
            # a generator that learns no more keeps its biases
            calibrate = self.context.config.calibrate and self.context.objective != PREDICTOR
            predictions = predict(model, self.dev_loader(), calibrate, masks)
            metrics = dev_metrics(predictions, model.config, self.context)
            return metrics, model.config.margin_bias, model.config.options

        metrics, model.config.margin_bias, model.config.options = on_first(measured)

        return metrics

    def dev_loader(self) -> DataLoader:
        """Dev data in order."""
        assert isinstance(self.eval_dataset, Dataset)
        return batches(self.eval_dataset, self.data_collator, 2 * self.context.config.batch_size)

    def get_train_dataloader(self) -> DataLoader:
        """Training data; of several processes each gets its rows of every batch.

        The order depends on seed and epoch alone. Batches are copied to the device one ahead, from pinned memory
        without waiting.
        """
        args = self.args
        loader = DataLoader(
            ProcessShard(self.train_dataset) if world() > 1 else self.train_dataset,  # type: ignore[arg-type]
            batch_size=self.context.config.batch_size,
            sampler=self._get_train_sampler(self.train_dataset),
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            prefetch_factor=args.dataloader_prefetch_factor,
            persistent_workers=args.dataloader_persistent_workers and not self._draws_alone,
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=rank()),
        )
        return prepare_data_loader(
            loader,
            args.device,
            num_processes=1,  # `ProcessShard` parts the batches
            process_index=0,
            put_on_device=True,
            use_seedable_sampler=True,
            data_seed=args.seed,
            non_blocking=True,
        )

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """AdamW with a learning rate of its own for new heads and local generators; frozen weights are left out."""
        if self.optimizer is None:
            config, model = self.context.config, self.rationale_model
            local = model.generator is not None and model.generator.encoder.reads_predictor
            pretrained = ("predictor.encoder.",) if local else ("predictor.encoder.", "generator.encoder.")

            heads: list[Tensor] = []
            encoders: list[Tensor] = []

            for name, weight in model.named_parameters():
                if weight.requires_grad:
                    (encoders if name.startswith(pretrained) else heads).append(weight)

            groups = [
                {"params": encoders, "lr": config.learning_rate},
                {"params": heads, "lr": config.head_learning_rate or config.learning_rate},
            ]
            self.optimizer = torch.optim.AdamW(
                groups, betas=(0.9, config.adam_beta2), weight_decay=config.weight_decay or 0.0, fused=True
            )

        return self.optimizer


def total_steps(config: TrainingConfig, examples: int) -> int:
    """Optimisation steps of a resolved run on so many training examples."""
    return (config.epochs or 1) * math.ceil(examples / (config.batch_size * config.gradient_accumulation))


def _own_sentence(error: RekdEdgeError) -> str:
    """What an error says; torch puts the traceback of the process that loads data around it."""
    if not str(error).startswith("Caught "):
        return str(error)
    return str(error).rstrip().rpartition(f"{type(error).__module__}.{type(error).__name__}: ")[2]


class TimedCheckpoints(TrainerCallback):
    """Asks for a checkpoint where the last one is so many minutes old, besides those of each epoch's end.

    Of several processes the first has the clock; they ask it every `ASKED_EVERY` steps.
    """

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self._last = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What was loaded is safe."""
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the interval, save."""
        if state.global_step % (state.max_steps // args.num_train_epochs) == 0:
            return  # the epoch's end saves, after its evaluation
        asks = world() == 1 or state.global_step % ASKED_EVERY == 0
        if asks and on_first(lambda: time.monotonic() - self._last >= self.seconds):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Whoever asked for it."""
        self._last = time.monotonic()


def uses_bf16(config: TrainingConfig) -> bool:
    """Whether a run computes in bf16: where it was asked for, or the device multiplies it faster than fp32."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases don't tell
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast_of(config: TrainingConfig, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """The precision of a run's steps, for what happens outside Trainer's."""
    return partial(torch.autocast, device.type, torch.bfloat16, enabled=uses_bf16(config))


class Arguments(TrainingArguments):
    """Trainer's arguments; several processes on a CPU resume too."""

    @property
    def device(self) -> torch.device:
        """`cpu` where accelerate says `cpu:0`, which is no place that torch loads a checkpoint to."""
        device = super().device
        return torch.device("cpu") if device.type == "cpu" else device


def training_arguments(config: TrainingConfig, checkpoints: Path, examples: int) -> TrainingArguments:
    """Trainer's arguments for a resolved run on so many training examples; resume files go to `checkpoints`."""
    epochs = config.epochs or 1
    warmup = round(config.warmup_ratio * total_steps(config, examples))
    scheduler = "constant_with_warmup" if config.lr_scheduler == "constant" else config.lr_scheduler
    cuda = torch.cuda.is_available()
    bf16 = uses_bf16(config)
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if bf16 else "no"  # else an earlier run's stays
    arguments = Arguments(
        output_dir=str(checkpoints),
        num_train_epochs=epochs,
        per_device_train_batch_size=config.batch_size // world(),
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=scheduler,
        warmup_steps=warmup,
        max_grad_norm=config.max_grad_norm,
        bf16=bf16,
        use_cpu=not cuda,  # Trainer refuses bf16 on a CPU otherwise; teachers know no other device
        seed=config.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping
        load_best_model_at_end=True,
        metric_for_best_model=config.select_by,
        greater_is_better=config.select_by == "accuracy",
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,  # it waits for every step's loss; a run that diverged is found at its end
        disable_tqdm=True,
        report_to=config.report_to,
        remove_unused_columns=False,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=cuda,
        dataloader_prefetch_factor=4 if config.workers else None,
        dataloader_persistent_workers=config.workers > 0,
        ddp_find_unused_parameters=method_of(config.method).idle_weights,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # a process has one GPU; more GPUs want more processes

    return arguments

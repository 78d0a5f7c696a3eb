"""The groups of a run's settings: what selects, what is distilled, how weights are optimised, the control, the process.

A field's type says what it takes. Which methods it has an effect on is said once for a group (`readers`) and, where a
field differs, by a `Readers` in its `Annotated`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rekd_edge.methods import Method
from rekd_edge.settings import LATER, Count, Epochs, NotNegative, Positive, Ratio, Section, Share, Text

__all__ = ["Control", "Distillation", "Group", "Optimisation", "Process", "Readers", "Selection"]


@plain_dataclass(frozen=True)
class Readers:
    """Which runs a setting has an effect on."""

    include: Callable[[Method, bool], bool]
    """From a method, and whether the run has teachers."""
    others: str
    """Why it has none on runs of other methods, after the method's name."""


EVERY = Readers(lambda method, taught: True, "")
COMPARED = Readers(lambda method, taught: not method.is_control, "is a control")
SELECTING = Readers(lambda method, taught: method.selects, "selects nothing")
WITH_RATIO = Readers(lambda method, taught: method.has_ratio, "selects nothing")
TAUGHT = Readers(lambda method, taught: taught, "takes no teacher")
TAUGHT_MASKS = Readers(lambda method, taught: taught and method.selects, "takes no teacher of masks")
TEMPERED = Readers(lambda method, taught: method.selects or taught, "selects nothing")


@dataclass(frozen=True)
class Group(Section):
    """Settings of a run, read by the same methods."""

    readers: ClassVar[Readers] = EVERY
    counts: ClassVar[bool] = True
    """Whether a run's figures depend on them."""


@dataclass(frozen=True)
class Selection(Group):
    """What is selected, and how the generator learns it."""

    readers = SELECTING

    generator: Annotated[Literal["local", "bilstm", "cnn", "resnet"] | None, LATER] = None
    """Family of the generator; by default the predictor's. `local` is a stack of narrow convolutions on the predictor's
    embeddings, which selects from what is near and costs next to nothing; the others are small nets with embeddings of
    their own (`bilstm` and `cnn` read text, `resnet` images)."""
    generator_layers: Count | None = None
    """Keep the generator's first K layers. By default as many as the predictor (the paper), but for a student that
    drops features (`rekd`, `drop`) 1 on text and 2 on images, where more layers won nothing that was measured; `local`
    has 3 convolutions on text, which reach 7 tokens to either side, and 2 on images."""
    generator_width: Annotated[int, Field(ge=8, le=4096), LATER] = 64
    """Channels of a `local` generator."""
    generator_context: Annotated[bool, LATER] = False
    """Let a `local` generator see the mean of the whole input too, at the cost of its locality."""
    target_ratio: Annotated[Ratio | None, WITH_RATIO] = None
    """p_target of equation 3: 0.10 for text, 0.15 for images."""
    class_ratios: Annotated[dict[str, Ratio] | None, WITH_RATIO] = None
    """p_target of examples of a label, where it is not `target_ratio`: `neg:0.05,pos:0.2`."""
    initial_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of every input that a fresh generator of `re` or `rekd` samples, set by the bias of its head. With None
    the head stays as it is drawn (about half), from where a deep encoder may need more than hundreds of steps to reach
    the target."""
    lambda_select: NotNegative | None = None
    """λ_select of equation 6: 1e-4 for text, 1e-2 for images (tuned per model in the paper's tables 4 and 5)."""
    normalise_selection: bool = True
    """Scale equation 3 by L so that λ_select means the same at any feature count; false is the paper's raw form."""
    selection_loss: Literal["per_sample", "batch_mean"] = "per_sample"
    """`per_sample` (paper) or `batch_mean` (published code)."""
    count_all_positions: Annotated[bool, EVERY] = False
    """Count padding and special tokens in L, as the published code does."""
    select_words: bool = False
    """All pieces of a word share one decision (texts)."""
    min_selected: Count = 1
    """Fewest features of a rationale."""
    max_selected: Count | None = None
    """Most features of a rationale."""
    lambda_contiguity: NotNegative = 0.0
    """Weight of the total variation of the mask: above 0, features are selected in runs (patches in patches)."""
    mask_mode: Annotated[Literal["zero", "drop"], WITH_RATIO] = "zero"
    """`zero` unselected embeddings (paper) or `drop` them from the predictor's attention."""
    share_embeddings: bool = False
    """One table of word pieces (text) or projection of patches (images) for both towers: a smaller file. Where
    `freeze_embeddings` is `all` and both start alike, the exported file holds one anyway."""
    round_embeddings: Annotated[bool | Annotated[int, Field(ge=4, le=8, multiple_of=4)] | None, LATER] = None
    """Round the embedding table of a text model to 8 (true) or 4 bits before calibration, so that an int8 bundle
    selects exactly what the run selects; with 4 its file is about a third smaller. By default 8 where the generator is
    `local`, and false elsewhere."""
    temperature_start: Annotated[Positive, TEMPERED] = 5.0
    """τ_0 of equation 10."""
    temperature_end: Annotated[Positive, TEMPERED] = 0.1
    """τ_K of equation 10."""
    temperature_refresh: Annotated[int, Field(ge=1, le=2**31 - 1), TEMPERED] = 100
    """Steps for which a temperature is kept."""
    predictor_epochs: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Epochs, after all others, in which only the predictor is trained, on the deterministic masks that it will meet on
    the device, from the labels and, where there are teachers, from theirs (equation 11 at τ = 1 without its selection
    terms). The result is kept if the dev figure improves (`select_by`)."""
    dev_masks: Annotated[Literal["deterministic", "sampled"], LATER] = "deterministic"
    """Masks on which the epoch is chosen: `deterministic` as on the device, or `sampled` from uncalibrated margins,
    as in the published code. A finished run's figures are those of deterministic masks either way."""
    calibrate: bool = True
    """End with a bias on the margin that brings the deterministic ratio on dev data to the target."""


@dataclass(frozen=True)
class Distillation(Group):
    """What a student learns from its teachers."""

    readers = TAUGHT

    alpha: Share = 0.3
    """α of equation 11; 0 is distillation alone, without the student's own loss."""
    alpha_end: Share | None = None
    """α at the last step, reached linearly (distillation first, own exploration later); `alpha` throughout if None."""
    distil: Literal["both", "rationale", "prediction"] = "both"
    """What is distilled: `both`, the `rationale` alone (equation 7) or the `prediction` alone (equation 8)."""
    teacher_labels: Literal["soft", "hard"] = "soft"
    """`soft` distributions, or the teacher's `hard` decisions: its deterministic mask and its label."""
    kd_temperature: Positive | None = None
    """A fixed τ for equations 7 and 8; by default the annealed one of equation 10."""
    lambda_r: Annotated[NotNegative, TAUGHT_MASKS] = 0.5
    """λ_R of equation 9."""
    gumbel_noise: Annotated[Literal["independent", "shared"], TAUGHT_MASKS] = "independent"
    """Noise of teacher and student in equation 7: `independent` draws or one `shared` draw."""
    teacher_mask: Annotated[Literal["own", "student"], TAUGHT_MASKS] = "own"
    """What the teacher's predictor sees in equation 8: its `own` rationale (paper) or the `student`'s (code)."""
    teacher_margins: Annotated[Literal["calibrated", "raw"], TAUGHT_MASKS] = "calibrated"
    """The logits of equation 7: with the bias that makes the teacher's mask what it is, or as its head gives them
    (`raw`). They differ where sampled and deterministic ratios do, as after short training."""
    allow_weak_teacher: Annotated[bool, TAUGHT_MASKS] = False
    """Distil even from a teacher that is no better than its random-mask control, or that has none."""

    def alpha_at(self, progress: float) -> float:
        """α of equation 11 after a share of the steps, 0 to 1."""
        end = self.alpha if self.alpha_end is None else self.alpha_end
        return self.alpha + (end - self.alpha) * progress


@dataclass(frozen=True)
class Optimisation(Group):
    """How long and how weights are trained."""

    epochs: Epochs | None = None
    """20 for `cls`, 35 for all others."""
    batch_size: Count = 32
    """Examples of a step before `gradient_accumulation`, over all processes that train the run."""
    gradient_accumulation: Count = 1
    """Batches whose gradients make one step of the optimiser, which is what temperatures and schedules count."""
    gradient_checkpointing: bool = False
    """Keep only the inputs of layers for backward and compute the rest again: less memory, up to a third more work."""
    compile: bool = False
    """Compile the model's training pass (`torch.compile`, any length), for students so small that a GPU waits for the
    host. Needs a C++ compiler; takes a minute or more to begin. Tested on a CPU, not measured on a GPU."""
    learning_rate: Positive = 1e-5
    head_learning_rate: Positive | None = None
    """For the new heads; `learning_rate` by default. Budgets of hundreds of steps need about 30 times as much."""
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    warmup_ratio: Share = 0.0
    """Share of the steps in which the learning rate rises to its value."""
    weight_decay: NotNegative | None = None
    """0 for text, 1e-3 for images."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of AdamW's second moment. Over hundreds of steps 0.999 never forgets the large distillation gradients of
    the first ones, and the predictor stops learning; the small recipes take 0.95."""
    max_grad_norm: NotNegative = 1.0
    head_dropout: Share | None = None
    """Dropout of the heads: 0.5 for text, 0.1 for images."""
    freeze_embeddings: Literal["none", "generator", "all"] = "none"
    """Keep feature embeddings as pretrained: `none`, the `generator`'s (published code), or `all`."""
    select_by: Annotated[Literal["loss", "accuracy"], LATER] = "loss"
    """The epoch that is kept: of the lowest dev `loss` (paper) or of the highest dev `accuracy`. On small data the loss
    is lowest early, while the accuracy still rises."""
    early_stopping: Annotated[Epochs | None, COMPARED] = None
    """Stop after so many epochs without a better dev figure (`select_by`)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` is bf16 autocast on a processor or GPU that multiplies bf16 faster (AVX512-BF16, AMX, Ampere), fp32
    elsewhere."""


@dataclass(frozen=True)
class Control(Group):
    """The random-mask controls of a run that selects; `training.control` says what they are."""

    readers = SELECTING

    control: Text | None = "train"
    """`train` them, the path of a run whose controls are the same, or null for none."""
    comparison_control: Annotated[Literal["both", "descent", "fixed", "none"], WITH_RATIO, LATER] = "both"
    """What the run is compared with: controls of as many steps as it has in all, their ratio falling from the whole
    input in the first half (`descent`) or `fixed` at the target, or `both`, of which the better one on dev counts.
    With `none` there is no comparison, and a teacher that cannot be checked."""
    control_epochs: Annotated[Epochs | None, WITH_RATIO] = None
    """Epochs of the control that a warm start begins from; `epochs` by default."""
    warm_start: bool = False
    """Start predictor, generator and the controls of the comparison from a first control's encoder instead of the
    backbone."""


@dataclass(frozen=True)
class Process(Group):
    """How a run is carried out; its figures do not depend on it."""

    counts = False

    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that load data."""
    report_to: Text = "none"
    """Trainer's logging integrations, for example `tensorboard` or `wandb`."""
    log_steps: Annotated[int, Field(ge=1, le=2**31 - 1)] = 50
    checkpoint_minutes: Positive = 3.0
    """An epoch that takes longer writes a checkpoint on its way: at most so much work is lost."""


def readers_of(config: type[Group], name: str) -> Readers:
    """Which methods a setting has an effect on."""
    hint = config.__pydantic_fields__[name]  # type: ignore[attr-defined]
    own = next((each for each in hint.metadata if isinstance(each, Readers)), None)
    return own or group_of(config, name).readers


def group_of(config: type[Group], name: str) -> Any:
    """The group that a setting belongs to."""
    return next(group for group in config.__mro__ if name in inspect.get_annotations(group))

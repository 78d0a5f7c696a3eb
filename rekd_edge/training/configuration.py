"""Every setting of a training run: one validated dataclass, the schema of recipes and of `--set`."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rekd_edge.data import DataSettings
from rekd_edge.errors import InputError
from rekd_edge.methods import METHODS, method_of

__all__ = ["TrainingConfig", "load_config"]

_CHOICES = {
    "mask_mode": ("zero", "drop"),
    "pooling": ("first", "mean"),
    "selection_loss": ("per_sample", "batch_mean"),
    "teacher_mask": ("own", "student"),
    "teacher_margins": ("calibrated", "raw"),
    "gumbel_noise": ("independent", "shared"),
    "distil": ("both", "rationale", "prediction"),
    "teacher_labels": ("soft", "hard"),
    "lr_scheduler": ("constant", "linear", "cosine"),
    "select_by": ("loss", "accuracy"),
    "precision": ("auto", "fp32", "bf16"),
    "freeze_embeddings": ("none", "generator", "all"),
}
_COUNTS = (
    "layers",
    "generator_layers",
    "temperature_refresh",
    "epochs",
    "control_epochs",
    "early_stopping",
    "batch_size",
    "gradient_accumulation",
    "log_steps",
    "min_selected",
    "max_selected",
)
_PAPER: dict[str, dict[str, Any]] = {
    "text": {"target_ratio": 0.10, "lambda_select": 1e-4, "weight_decay": 0.0, "head_dropout": 0.5},
    "image": {"target_ratio": 0.15, "lambda_select": 1e-2, "weight_decay": 1e-3, "head_dropout": 0.1},
}
_WEIGHTS = ("lambda_select", "lambda_r", "lambda_contiguity")
_SHALLOW = {"text": 1, "image": 2}


@dataclass
class TrainingConfig:
    """A training run. Defaults are those of arXiv 2601.22531; None means the paper's value for the modality."""

    method: str = "re"
    """Of `METHODS`: `cls` (the whole input), `re` (equations 1-6), `rekd` (1-11), `plmr`, `rtp`."""
    spec: str = ""
    """What to train on: the data SPEC (`data.spec` in a recipe)."""
    backbone: str = ""
    """Hub name, local folder or `random:NAME`; after `bilstm:`, `cnn:` or `resnet:`, such a net on its features."""
    layers: int | None = None
    """Keep the predictor's first K layers; a net of another family has K (by default 1 for `bilstm`, else 2)."""
    generator_layers: int | None = None
    """Keep the generator's first K layers. By default as many as the predictor (the paper), but for a student that
    drops features (`rekd`, `drop`) 1 on text and 2 on images, where more layers won nothing that was measured."""
    teacher: str | None = None
    """The run to distil from, for `cls` a `cls` run; several, parted by commas, are averaged."""
    seed: int = 2026

    target_ratio: float | None = None
    """p_target of equation 3: 0.10 for text, 0.15 for images."""
    initial_ratio: float | None = None
    """What a fresh generator of `re` or `rekd` samples of every input, by the bias of its head; None leaves the head as
    it is drawn (about half), from where a deep encoder may not come down to the target within hundreds of steps."""
    ratio_descent: float = 0.0
    """Share of the steps in which p_target of equation 3 falls from 1 to `target_ratio` for `re` and `rekd`: the
    predictor learns on the whole input first, and the generator to leave out little by little. 0 is the paper's
    constant target."""
    lambda_select: float | None = None
    """λ_select of equation 6: 1e-4 for text, 1e-2 for images (tuned per model in the paper's tables 4 and 5)."""
    normalise_selection: bool = True
    """Scale equation 3 by L so that λ_select means the same at any feature count; false is the paper's raw form."""
    selection_loss: str = "per_sample"
    """`per_sample` (paper) or `batch_mean` (published code)."""
    count_all_positions: bool = False
    """Count padding and special tokens in L, as the published code does."""
    select_words: bool = False
    """All pieces of a word share one decision (texts)."""
    min_selected: int = 1
    """Fewest features of a rationale."""
    max_selected: int | None = None
    """Most features of a rationale."""
    class_ratios: dict[str, float] | None = None
    """p_target of examples of a label, where it is not `target_ratio`: `neg:0.05,pos:0.2`."""
    lambda_contiguity: float = 0.0
    """Weight of the total variation of the mask: above 0, features are selected in runs (patches in patches)."""
    mask_mode: str = "zero"
    """`zero` unselected embeddings (paper) or `drop` them from the predictor's attention."""
    pooling: str = "first"
    """What the predictor's classifier reads: the `first` position (paper), or the `mean` of what is visible, which
    learns in hundreds of steps what the first position learns in thousands."""
    share_embeddings: bool = False
    """One table of word pieces (text) or projection of patches (images) for both towers: a smaller file. Where
    `freeze_embeddings` is `all` and both start alike, the exported file holds one anyway."""
    temperature_start: float = 5.0
    """τ_0 of equation 10."""
    temperature_end: float = 0.1
    """τ_K of equation 10."""
    temperature_refresh: int = 100
    """Steps for which a temperature is kept."""
    alpha: float = 0.3
    """α of equation 11; 0 is distillation alone, without the student's own loss."""
    alpha_end: float | None = None
    """α at the last step, reached linearly (distillation first, own exploration later); `alpha` throughout if None."""
    distil: str = "both"
    """What is distilled: `both`, the `rationale` alone (equation 7) or the `prediction` alone (equation 8)."""
    teacher_labels: str = "soft"
    """`soft` distributions, or the teacher's `hard` decisions: its deterministic mask and its label."""
    kd_temperature: float | None = None
    """A fixed τ for equations 7 and 8; by default the annealed one of equation 10."""
    lambda_r: float = 0.5
    """λ_R of equation 9."""
    gumbel_noise: str = "independent"
    """Noise of teacher and student in equation 7: `independent` draws or one `shared` draw."""
    teacher_mask: str = "own"
    """What the teacher's predictor sees in equation 8: its `own` rationale (paper) or the `student`'s (code)."""
    teacher_margins: str = "calibrated"
    """The logits of equation 7: with the bias that makes the teacher's mask what it is, or as its head gives them
    (`raw`). They differ where sampled and deterministic ratios do, as after short training."""
    allow_weak_teacher: bool = False
    """Distil even from a teacher that is no better than its random-mask control, or that has none."""

    epochs: int | None = None
    """20 for `cls`, 35 for all others."""
    batch_size: int = 32
    """Examples of a step before `gradient_accumulation`, over all processes that train the run."""
    gradient_accumulation: int = 1
    """Batches whose gradients make one step of the optimiser, which is what temperatures and schedules count."""
    gradient_checkpointing: bool = False
    """Keep the inputs of layers alone for backward and compute the rest again: less memory, up to a third more work."""
    compile: bool = False
    """Compile the model's training pass (`torch.compile`, any length), for students so small that a GPU waits for the
    host. Needs a C++ compiler; takes a minute or more to begin. Tested on a CPU, not measured on a GPU."""
    learning_rate: float = 1e-5
    head_learning_rate: float | None = None
    """For the new heads; `learning_rate` by default. Budgets of hundreds of steps need about 30 times as much."""
    lr_scheduler: str = "constant"
    warmup_ratio: float = 0.0
    weight_decay: float | None = None
    """0 for text, 1e-3 for images."""
    adam_beta2: float = 0.999
    """Decay of AdamW's second moment. Over hundreds of steps 0.999 never forgets the large distillation gradients of
    the first ones, and the predictor stops learning; the small recipes take 0.95."""
    max_grad_norm: float = 1.0
    head_dropout: float | None = None
    """Dropout of the heads: 0.5 for text, 0.1 for images."""
    freeze_embeddings: str = "none"
    """Keep feature embeddings as pretrained: `none`, the `generator`'s (published code), or `all`."""
    predictor_epochs: int = 0
    """Epochs, after all others, in which the predictor alone goes on learning, on the deterministic masks that it will
    meet on the device, from the labels and, where there are teachers, from theirs (equation 11 at τ = 1 without its
    selection terms); what it learnt is kept if the dev figure improves (`select_by`)."""
    select_by: str = "loss"
    """The epoch that is kept: of the lowest dev `loss` (paper) or of the highest dev `accuracy`. On small data the loss
    is lowest early, while the accuracy still rises."""
    early_stopping: int | None = None
    """Stop after so many epochs without a better dev figure (`select_by`)."""
    precision: str = "auto"
    """`auto` is bf16 autocast on a processor or GPU that multiplies bf16 faster (AVX512-BF16, AMX, Ampere), fp32
    elsewhere."""
    workers: int = 0
    """Processes that load data."""
    report_to: str = "none"
    """Trainer's logging integrations, for example `tensorboard` or `wandb`."""
    log_steps: int = 50
    checkpoint_minutes: float = 3.0
    """An epoch that takes longer is checkpointed on its way: at most so much work is lost."""

    calibrate: bool = True
    """End with a bias on the margin that brings the deterministic ratio on dev data to the target."""
    control: str | None = "train"
    """The random-mask control: `train` one, the path of a run whose control is the same, or null for none."""
    control_epochs: int | None = None
    """Epochs of the control; `epochs` by default."""
    warm_start: bool = False
    """Start predictor and generator from the control's encoder instead of the backbone."""

    data: DataSettings = field(default_factory=DataSettings)
    options: Any = None
    """The method's own settings, its section of a recipe; their defaults if None."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            InputError: a value out of range.
        """
        method = method_of(self.method)
        if self.options is None:
            self.options = _own_settings(self.method)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}.")
        for name in _COUNTS:
            _check(self, name, lambda value: value >= 1, "at least 1")
        _check(self, "seed", lambda value: 0 <= value < 2**32, f"between 0 and {2**32 - 1}")
        for name in (
            "learning_rate",
            "head_learning_rate",
            "temperature_start",
            "temperature_end",
            "kd_temperature",
            "checkpoint_minutes",
        ):
            _check(self, name, lambda value: value > 0, "above 0")
        for name in (*_WEIGHTS, "weight_decay", "workers", "max_grad_norm", "predictor_epochs"):
            _check(self, name, lambda value: value >= 0, "at least 0")
        for name in ("alpha", "alpha_end", "ratio_descent", "head_dropout", "warmup_ratio"):
            _check(self, name, lambda value: 0 <= value <= 1, "between 0 and 1")
        _check(self, "adam_beta2", lambda value: 0 <= value < 1, "at least 0 and below 1")
        _check(self, "initial_ratio", lambda value: 0 < value < 1, "above 0 and below 1")
        _check(self, "target_ratio", lambda value: 0 < value <= 1, "above 0 and at most 1")
        for ratio in (self.class_ratios or {}).values():
            if not 0 < ratio <= 1:
                raise InputError(f"class_ratios must be above 0 and at most 1, not {ratio}.")
        if self.max_selected is not None and self.max_selected < self.min_selected:
            raise InputError(
                f"min_selected is {self.min_selected} and max_selected {self.max_selected}; a rationale cannot be both."
            )
        if self.teacher and not all(name.strip() for name in self.teacher.split(",")):
            raise InputError(f"--teacher {self.teacher!r} names no run; give folders, several parted by commas.")
        if self.teacher and not method.selects and self.distil == "rationale":
            raise InputError(f"{self.method} has no rationale to distil; set distil=both or distil=prediction.")
        if method.teacher == "must" and not self.teacher:
            raise InputError(f"{self.method} distils from a teacher; give --teacher the folder of a finished re run.")
        if method.teacher == "never" and self.teacher:
            raise InputError(f"{self.method} takes no teacher; use --method rekd or leave --teacher out.")
        if self.select_words and self.count_all_positions:
            raise InputError("select_words and count_all_positions exclude each other: padding belongs to no word.")
        if self.share_embeddings and self.freeze_embeddings == "generator":
            raise InputError("Shared embeddings cannot be frozen for the generator alone; freeze all of them, or none.")
        if self.warm_start and self.control is None and method.selects:
            raise InputError("warm_start begins from the control; set control=train or the path of a run that has one.")

    def resolved(self, task: str) -> TrainingConfig:
        """The same run with the paper's values for a modality (`text` or `image`) in place of None."""
        defaults = {**_PAPER[task], "epochs": method_of(self.method).epochs}
        if self.method == "rekd" and self.mask_mode == "drop":
            defaults["generator_layers"] = min(_SHALLOW[task], self.layers or _SHALLOW[task])
        defaults["head_learning_rate"] = self.learning_rate
        filled = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        if not method_of(self.method).selects:
            filled["teacher_mask"] = "own"  # the student has no mask to show
        return dataclasses.replace(self, **filled)

    def alpha_at(self, progress: float) -> float:
        """α of equation 11 after a share of the steps, 0 to 1."""
        end = self.alpha if self.alpha_end is None else self.alpha_end
        return self.alpha + (end - self.alpha) * progress

    def descent_at(self, progress: float) -> float:
        """How much of the way from all features down to `target_ratio` is still to go after a share of the steps."""
        return max(0.0, 1.0 - progress / self.ratio_descent) if self.ratio_descent else 0.0

    def ratios(self, labels: tuple[str, ...]) -> list[float]:
        """p_target of each label of a resolved run.

        Raises:
            InputError: `class_ratios` names a label that the data has not.
        """
        assert self.target_ratio is not None
        given = self.class_ratios or {}
        if unknown := sorted(given.keys() - set(labels)):
            raise InputError(f"class_ratios names {unknown[0]!r}; the labels are {', '.join(labels)}.")
        return [given.get(label, self.target_ratio) for label in labels]

    def with_method(self, method: str, **changes: Any) -> TrainingConfig:
        """The same settings for another method, whose own ones are the defaults."""
        return dataclasses.replace(self, method=method, options=None, **changes)

    def to_dict(self) -> dict[str, Any]:
        """A recipe: nested plain values that `load_config` takes back."""
        fields = dataclasses.asdict(self)
        options = fields.pop("options")
        own = {} if options is None else {self.method: options}
        return {**fields, "data": {"spec": fields.pop("spec"), **fields.pop("data")}, **own}


def load_config(recipe: Path | str | None, overrides: dict[str, Any]) -> TrainingConfig:
    """Build a run's settings from a recipe and from overrides, which win.

    Args:
        recipe: a YAML file, or the name of a shipped recipe; None for the defaults alone.
        overrides: dotted keys (`data.max_length`) to values or to strings as `--set` gives them.

    Raises:
        InputError: unreadable recipe, unknown key, wrong type or value.
    """
    fields = {} if recipe is None else _read_recipe(recipe)
    sections: dict[str, dict[str, Any]] = {}
    for name in SECTIONS:
        section = fields.pop(name, {}) or {}
        if not isinstance(section, dict):
            raise InputError(f"`{name}` in a recipe is a mapping, for example data: {{spec: imdb, max_length: 256}}.")
        sections[name] = section
    for key, value in overrides.items():
        section, _, name = key.rpartition(".")
        if section not in ("", *SECTIONS) or key in SECTIONS:
            raise InputError(
                f"Unknown setting {key!r}; settings are a name, or one of {', '.join(SECTIONS)} with .NAME."
            )
        (sections[section] if section else fields)[name] = value
    data = sections.pop("data")
    if "spec" in data:
        fields["spec"] = data.pop("spec")
    own = {name: _own_settings(name, given) for name, given in sections.items()}  # all are checked, one is taken
    built = {"data": _build(DataSettings, data, "data."), "options": own.get(str(fields.get("method", "re")))}
    return _build(TrainingConfig, {**fields, **built}, "")


def _own_settings(method: str, given: dict[str, Any] | None = None) -> Any:
    """A method's own settings; None where it has none."""
    settings = getattr(method_of(method).training(), "Settings", None)
    return None if settings is None else _build(settings, given or {}, f"{method}.")


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _RECIPES.glob("*.yaml"))


SECTIONS = ("data", *(name for name, method in METHODS.items() if method.settings))
"""The nested parts of a recipe: the data's, and those of the methods that have settings of their own."""

_RECIPES = Path(__file__).parent / "recipes"


def _read_recipe(recipe: Path | str) -> dict[str, Any]:
    path = Path(recipe)
    if not path.is_file():
        path = _RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        raise InputError(f"There is no recipe {recipe}; give a YAML file or one of {', '.join(shipped_recipes())}.")
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{recipe} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(fields, dict):
        raise InputError(f"{recipe} must be a mapping of settings.")
    return fields


def _build(target: Any, fields: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(target)
    for name in fields:
        if name not in hints:
            known = ", ".join(prefix + key for key in hints if key not in ("data", "options"))
            raise InputError(f"Unknown setting {f'{prefix}{name}'!r}; known are {known}.")
    return target(**{name: _coerce(value, hints[name], prefix + name) for name, value in fields.items()})


def _coerce(value: Any, hint: Any, name: str) -> Any:
    """Turn a `--set` string or a YAML value into the field's type."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = next(option for option in options if option is not type(None))
    if kind is Any:
        return value
    kind = typing.get_origin(kind) or kind
    if kind is dict and isinstance(value, str) and value.lower() not in ("null", "none", ""):
        parts = [part.strip().rpartition(":") for part in value.split(",")]
        value = {label: number for label, _, number in parts} if all(label for label, _, _ in parts) else value
    if kind is dict and isinstance(value, dict):
        return {str(key): _coerce(each, float, f"{name}.{key}") for key, each in value.items()}
    if isinstance(value, str):
        if value.lower() in ("null", "none", "") and type(None) in options:
            return None
        if kind is bool and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                raise InputError(f"{name} takes {_spelled(kind)}, not {value!r}.") from None
    if value is None and type(None) in options:
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{name} takes {_spelled(kind)}, not {value!r}.")
    return value


def _spelled(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", dict: "label:ratio,label:ratio"}.get(
        kind, "a text"
    )


def _check(config: TrainingConfig, name: str, accept: typing.Callable[[Any], bool], words: str) -> None:
    value = getattr(config, name)
    if value is not None and not (math.isfinite(value) and accept(value)):
        raise InputError(f"{name} must be {words}, not {value}.")

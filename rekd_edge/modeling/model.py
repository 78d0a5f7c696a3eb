"""The rationale model: a generator selects, a predictor decides from that alone (arXiv 2601.22531, section 2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rekd_edge.errors import InputError
from rekd_edge.methods import method_of
from rekd_edge.modeling.configuration import RationaleConfig
from rekd_edge.modeling.encoders import Encoder, build_encoder
from rekd_edge.modeling.masking import padding_bias
from rekd_edge.modeling.selection import (
    NEVER_SELECTED,
    Limits,
    at_units,
    deterministic_mask,
    gumbel_log_softmax,
    gumbel_noise,
    mean_over_units,
    random_mask,
    selection_margin,
    straight_through_mask,
    word_units,
)
from rekd_edge.modeling.towers import Generator, Predictor
from rekd_edge.runs.layout import CONFIG_FILE, MODEL_FILE
from rekd_edge.settings import shown

__all__ = ["Depth", "RationaleModel", "RationaleOutput", "Sampling", "Selection"]

EncoderSource = Callable[..., Encoder]
"""`(layers, family) -> Encoder`; None stands for all layers and for the backbone's own family."""
Solve = Callable[..., float]
"""See `RationaleModel.calibrate`."""


class Depth(NamedTuple):
    """How many layers of the backbone to keep: None keeps all; a generator then has as many as the predictor."""

    predictor: int | None
    generator: int | None
    generator_family: str | None = None
    """The generator's family where it differs from the predictor's; its default depth is then that of its family."""


class Sampling(NamedTuple):
    """How masks are drawn in training."""

    temperature: float = 1.0
    """τ of equation 1."""
    noise: Tensor | None = None
    """G of equation 1 [batch, features, 2]; drawn where None."""


@dataclass(frozen=True)
class Selection:
    """The generator's output for each position. Tensors are [batch, features] unless stated otherwise."""

    feature: Tensor
    """bool: real tokens or patches."""
    logits: Tensor | None = None
    """Z of equation 1, [batch, features, 2]; None where no generator selects."""
    unit: Tensor | None = None
    """Which features are selected together (see `modeling.selection`); None if each is selected on its own."""
    log_selection: Tensor | None = None
    """log S of equation 1, [batch, features, 2]; None where the mask was not sampled."""
    noise: Tensor | None = None
    """G of equation 1, [batch, features, 2]; None where there was none."""
    sampled: Tensor | None = None
    """The sampled mask as straight-through floats; None where it was not sampled."""


@dataclass(frozen=True)
class RationaleOutput:
    """Output of a forward pass."""

    logits: Tensor
    """[batch, classes]."""
    mask: Tensor
    """[batch, features], bool in `eval()`, straight-through floats in training."""
    margin: Tensor
    """Selection margin, float32 [batch, features]."""
    selection: Selection


class RationaleModel(nn.Module):
    """Generator, selection and predictor of the methods `cls`, `re` and `rekd`, and of the random-mask control.

    In training mode masks are sampled by straight-through Gumbel-Softmax at the given temperature; in `eval()` they
    follow the deterministic rule, the same code that is exported. The models of other methods are subclasses that may
    override `build`, `build_predictor`, `draw_noise`, `select`, `margin`, `classify`, `rationale_logits`,
    `calibrate`, `extra_outputs` and `extra_fields`.
    """

    EXTRA_OUTPUTS: ClassVar[dict[str, dict[str, Any]]] = {}
    """Outputs of the graph beyond those of the contract: name to `dtype` and `shape`, as in the manifest."""

    def __init__(self, config: RationaleConfig, predictor: Encoder, generator: Encoder | None) -> None:
        super().__init__()
        self.config = config
        self.generator: Any = self.build_generator(config, generator)

        for encoder in (predictor, generator):
            if encoder is not None:
                encoder.max_length = config.max_length

        if not config.final_norm:
            predictor.skip_final_norm()

        self.predictor = self.build_predictor(config, predictor)

        if config.share_embeddings and generator is not None:
            generator.share_embedding(predictor)
            self.predictor.embeds_first = config.task == "image"

        self.starts_word: Tensor | None
        pieces = torch.ones(predictor.config.vocab_size, dtype=torch.bool) if config.select_words else None
        self.register_buffer("starts_word", pieces)

    @classmethod
    def build(cls, facts: RationaleConfig, encoder: EncoderSource, depth: Depth, options: Any) -> RationaleModel:
        """Build a model for training, and fill in the encoder configurations and `options` of `facts`.

        Args:
            facts: the configuration that will be saved with the model.
            encoder: builds an encoder from the backbone.
            depth: layers of predictor and generator.
            options: the method's own settings; None if it has none.

        Raises:
            InputError: the method does not support this depth.
        """
        predictor, generator = encoder(depth.predictor), None

        if facts.selects and depth.generator_family is not None:
            generator = encoder(depth.generator, depth.generator_family)
            facts.share_embeddings |= generator.reads_predictor
        elif facts.selects:
            generator = encoder(depth.generator or depth.predictor)

        facts.predictor = predictor.config.to_dict()
        facts.generator = None if generator is None else generator.config.to_dict()
        return cls(facts, predictor, generator)

    def build_generator(self, config: RationaleConfig, encoder: Encoder | None) -> nn.Module | None:
        """The module that selects, wrapped around its encoder; None without an encoder."""
        return None if encoder is None else Generator(encoder, config.head_hidden, config.head_dropout)

    def build_predictor(self, config: RationaleConfig, encoder: Encoder) -> Predictor:
        """The module that classifies, wrapped around its encoder."""
        return Predictor(encoder, len(config.labels), config.head_dropout, config.mask_mode, config.pooling)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        temperature: float = 1.0,
        noise: Tensor | None = None,
        random_ratio: float | None = None,
        fixed_masks: bool = False,
    ) -> RationaleOutput:
        """Select, then classify.

        Args:
            input_ids: int64 [batch, sequence] (text).
            attention_mask: int64 [batch, sequence], 0 on padding (text).
            pixel_values: float32 [batch, 3, H, W] (images).
            temperature: τ of equation 1; training only.
            noise: from `draw_noise`, [batch, features, 2]; drawn here if None; training only.
            random_ratio: share of the features that a control selects at random; its target ratio if None.
            fixed_masks: use the deterministic rule in training too, with a frozen generator.
        """
        inputs = pixel_values if input_ids is None else input_ids
        assert inputs is not None

        if fixed_masks and self.generator is not None:
            self.generator.eval()

        sampling = Sampling(temperature, noise) if self.training and not fixed_masks else None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not fixed_masks):
            selection = self.select(inputs, attention_mask, sampling)

        margin = self.margin(selection)
        if selection.sampled is not None:
            mask = selection.sampled
        elif method_of(self.config.method).is_control:
            ratio = self.config.target_ratio if random_ratio is None else random_ratio
            score, rounding = (None, None) if noise is None else (noise[..., 0], noise[:, 0, 1])
            mask = random_mask(selection.feature, ratio, score=score, rounding=rounding)
        else:
            mask = self.deterministic_mask(margin, selection)

        return RationaleOutput(self.classify(inputs, attention_mask, mask, selection), mask, margin, selection)

    def draw_noise(self, rows: int, features: int, generator: torch.Generator) -> Tensor | None:
        """The random numbers of a training step, [rows, ..., features, width]; None if the model draws none.

        G of equation 1, [rows, features, 2]. Of a control uniform numbers in the same shape: the first of a feature is
        its score, the second of a row's first position rounds the row's count (`random_mask`).
        """
        if method_of(self.config.method).is_control:
            return torch.rand((rows, features, 2), device=generator.device, generator=generator)
        if self.generator is None:
            return None
        return gumbel_noise(torch.empty((rows, features, 2), device=generator.device), generator)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the activations inside encoder layers in the backward pass instead of storing them."""
        for module in self.modules():
            if isinstance(module, Encoder):
                module.recompute = True

    def select(self, inputs: Tensor, attention_mask: Tensor | None, sampling: Sampling | None = None) -> Selection:
        """Run the generator on token ids or pixels, and sample a mask if `sampling` is given."""
        feature, _ = self.feature_positions(inputs, attention_mask)
        if self.generator is None:
            return Selection(feature)

        unit = self.units(inputs, feature)
        logits = mean_over_units(self.generator(inputs, padding_bias(attention_mask)), unit)

        if sampling is None:
            return Selection(feature, logits, unit)

        noise = at_units(gumbel_noise(logits) if sampling.noise is None else sampling.noise, unit)
        log_selection = gumbel_log_softmax(logits, noise, sampling.temperature)
        drawn = torch.ones_like(feature) if self.config.count_all_positions else feature
        mask = straight_through_mask(log_selection, drawn, unit, self.limits)

        return Selection(feature, logits, unit, log_selection, noise, mask)

    def margin(self, selection: Selection) -> Tensor:
        """Selection margin float32 [batch, features] with the calibrated bias; without a generator all are selected."""
        feature = selection.feature
        if selection.logits is None:
            everything = torch.full(feature.shape, -NEVER_SELECTED, device=feature.device)
            return everything.masked_fill(~feature, NEVER_SELECTED)
        return selection_margin(selection.logits, feature, self.config.margin_bias)

    def deterministic_mask(self, margin: Tensor, selection: Selection) -> Tensor:
        """The mask that the device computes, bool [batch, features]."""
        limits = self.limits if self.config.selects else None
        return deterministic_mask(margin, selection.feature, selection.unit, limits)

    def classify(self, inputs: Tensor, attention_mask: Tensor | None, mask: Tensor, selection: Selection) -> Tensor:
        """Class logits float32 [batch, classes] from the features in `mask` and the special tokens."""
        return self.predictor(inputs, self.visible(inputs, attention_mask, mask), padding_bias(attention_mask)).float()

    def calibrate(self, select_all: Callable[[], list[Selection]], solve: Solve) -> list[Selection]:
        """Set the margin's bias so that the deterministic ratio comes closest to the target.

        Args:
            select_all: runs the generator over the calibration data with the current biases.
            solve: from (margin, feature, candidate, unit) of each batch, [batch, features], and a target ratio to the
                bias; features that are no candidates count in L and stay unselected. It may be given `Limits` in
                place of the model's, and a slack (see `training.calibration`).

        Returns:
            The last output of `select_all`; only biases that it does not depend on were changed since.
        """
        self.config.margin_bias = 0.0
        selections = select_all()
        found = [(self.margin(each), each.feature, each.feature, each.unit) for each in selections]
        self.config.margin_bias = solve(found, self.config.target_ratio)
        return selections

    def extra_outputs(self, output: RationaleOutput) -> dict[str, Tensor]:
        """The `EXTRA_OUTPUTS`, in their order."""
        return {}

    def extra_fields(self) -> dict[str, Any]:
        """Fields that the method adds to the manifest."""
        return {}

    def rationale_logits(self, inputs: Tensor, attention_mask: Tensor | None, mask: Tensor) -> Tensor | None:
        """Class logits [batch, classes] from the selected features alone; None if `classify` sees nothing else."""
        return None

    def visible(self, inputs: Tensor, attention_mask: Tensor | None, mask: Tensor) -> Tensor:
        """What the predictor may see, [batch, features]: the mask and the special tokens; bool where the mask is."""
        _, special = self.feature_positions(inputs, attention_mask)
        if mask.dtype == torch.bool:
            return mask | special
        return (mask + special.float()).clamp(max=1.0)

    def feature_positions(self, inputs: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Which positions are features, and which are special tokens: two bool tensors [batch, features]."""
        if attention_mask is None:
            rows, columns = self.grid(inputs)
            feature = torch.ones(inputs.shape[0], rows * columns, dtype=torch.bool, device=inputs.device)
            return feature, torch.zeros_like(feature)

        real = attention_mask == 1
        # two or three comparisons in a row take fewer nodes than one with all of them; isin has no ONNX form
        matches = [inputs == token for token in self.config.special_token_ids]
        special = reduce(torch.logical_or, matches) & real if matches else torch.zeros_like(real)
        return real ^ special, special

    def units(self, inputs: Tensor, feature: Tensor) -> Tensor | None:
        """Which features are selected together, [batch, features]; None if each is selected on its own."""
        return None if self.starts_word is None else word_units(self.starts_word[inputs], feature)

    @property
    def limits(self) -> Limits | None:
        """Bounds on the number of selected features; None if there are none."""
        limits = Limits(self.config.min_selected, self.config.max_selected)
        return None if limits == Limits() else limits

    def grid(self, pixels: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of [batch, 3, H, W]."""
        return pixels.shape[2] // self.patch_size, pixels.shape[3] // self.patch_size

    @property
    def generator_in_float(self) -> bool:
        """Whether the generator stays in float in an int8 bundle, so that its masks are those of the run."""
        return self.generator is not None and self.generator.encoder.reads_predictor

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels (images only)."""
        return self.predictor.encoder.config.patch_size

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors` into an existing folder."""
        folder = Path(folder)
        self.config.save(folder / CONFIG_FILE)
        save_file(self.checkpoint(), str(folder / MODEL_FILE), metadata={"format": "pt"})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> RationaleModel:
        """Load a run in `eval()` mode, whichever transformers version wrote it.

        Raises:
            InputError: no run there, weights missing, damaged, of another geometry, or not finite.
        """
        folder = Path(folder)
        config = RationaleConfig.load(folder)
        file = folder / MODEL_FILE

        try:
            with safe_open(str(file), "pt") as saved:
                shapes = {name: tuple(saved.get_slice(name).get_shape()) for name in saved.keys()}  # noqa: SIM118

            # without memory for its weights, for whatever the configuration may ask for
            with torch.device("meta"):
                skeleton = _built(config)

            if shapes != {name: tuple(weight.shape) for name, weight in skeleton.checkpoint().items()}:
                raise InputError(f"{file} does not fit its config.json; train the run again.")

            model, weights = _built(config), load_file(str(file))
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file} is missing or damaged; restore it or train the run again.") from error

        broken = next((name for name, weight in weights.items() if not torch.isfinite(weight).all()), None)
        if broken is not None:
            raise InputError(f"{file} holds NaN or infinite weights ({broken}); train the run again at a lower rate.")

        model.load_checkpoint(weights, str(file))
        model.eval()

        try:
            with torch.no_grad():
                model(**_short_input(model))
        except Exception as error:  # options of the method that no run has
            raise InputError(f"{folder / CONFIG_FILE} does not describe a model that runs; train it again.") from error

        return model

    def count_loss_as(self, share: float | Tensor) -> None:
        """Set the weight of this batch's mean loss in the minimised loss: below 1 where gradients accumulate, or for an
        uneven share of a batch. The bound on the gradient of a feature is stated in the loss of a single example.
        """
        for tower in (self.generator, self.predictor):
            if tower is not None:
                tower.loss_share = share

    def checkpoint(self) -> dict[str, Tensor]:
        """The weights under the names that checkpoints use."""
        return {self._saved_name(name): weight.contiguous() for name, weight in self.state_dict().items()}

    def load_checkpoint(self, weights: dict[str, Tensor], source: str) -> None:
        """Load weights named as `checkpoint` names them.

        Raises:
            InputError: names or shapes differ from this model's.
        """
        names = {self._saved_name(name): name for name in self.state_dict()}
        try:
            self.load_state_dict({names[saved]: weight for saved, weight in weights.items()})
        except (KeyError, RuntimeError) as error:
            raise InputError(f"{source} does not fit its config.json; train the run again.") from error

    def _saved_name(self, name: str) -> str:
        for pattern, saved in self.predictor.encoder.renamed:
            name = re.sub(pattern, saved, name)
        return name


def _short_input(model: RationaleModel) -> dict[str, Tensor]:
    """An input of one row that any model can read."""
    config = model.predictor.encoder.config
    if model.config.task == "image":
        return {"pixel_values": torch.zeros(1, config.num_channels, config.image_size, config.image_size)}
    input_ids = torch.arange(4)[None] % config.vocab_size
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def _built(config: RationaleConfig) -> RationaleModel:
    """A model with fresh weights.

    Raises:
        InputError: no model of this configuration can be built.
    """
    try:
        predictor = build_encoder(config.predictor)
        generator = None if config.generator is None else build_encoder(config.generator)
        return method_of(config.method).model_class()(config, predictor, generator)
    except InputError:
        raise
    except Exception as error:  # whatever transformers and torch say of a configuration that no run has
        reason = shown(" ".join(str(error).split()))[1:-1]
        raise InputError(f"No model can be built from config.json ({reason}); train the run again.") from error

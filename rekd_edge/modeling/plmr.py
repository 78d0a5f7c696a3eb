"""PLMR: one encoder, split; its first layers prune features step by step, its last ones decide from what is left.

arXiv 2501.03182. With S generator layers of which F read the whole input, a pruning step follows each of the layers
F+1 … S: one head, shared by all steps, keeps or drops every feature that is still there. The predictor, the layers
after S, starts anew from the input embeddings of the rationale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rekd_edge.errors import InputError
from rekd_edge.modeling.configuration import RationaleConfig
from rekd_edge.modeling.encoders.encoder import Encoder
from rekd_edge.modeling.masking import drop_bias, gather_visible, padding_bias
from rekd_edge.modeling.model import (
    Depth,
    EncoderSource,
    RationaleModel,
    Sampling,
    Selection,
    Solve,
)
from rekd_edge.modeling.selection import (
    NEVER_SELECTED,
    Limits,
    at_units,
    deterministic_mask,
    gumbel_log_softmax,
    gumbel_noise,
    mean_over_units,
    straight_through_mask,
)
from rekd_edge.modeling.towers import Predictor

__all__ = [
    "SHED",
    "PLMRModel",
    "PLMRSelection",
    "PruningGenerator",
    "ZeroingPredictor",
    "cascade",
    "check_layers",
    "kept_shares",
]

SHED = -1e6
"""The margin of a feature shed at the last but one step, for each step that it missed: it ranks by its last step."""
SLACK = 0.02
"""How far from the schedule, relatively, a bias that is not the last may leave the share, to lie in a wide gap."""


@dataclass(frozen=True)
class PLMRSelection(Selection):
    """What the steps of a cascade say; `logits` and `log_selection` are those of the whole cascade."""

    margins: Tensor | None = None
    """z_1 - z_0 at each step without biases, float32 [batch, steps, features]; in `eval()` a feature that was shed
    keeps the margin of the step that shed it."""
    outlived: Tensor | None = None
    """How many steps, the last apart, each feature came through, float32 [batch, features]."""
    kept: Tensor | None = None
    """The masks drawn after each step, straight-through floats [batch, steps, features]; training only."""
    full_logits: Tensor | None = None
    """Class logits of the whole input, read after its last layer, [batch, classes]; training only."""


class PruningGenerator(nn.Module):
    """The first layers of the encoder, and the head that prunes."""

    loss_share: float | Tensor = 1.0
    """See `RationaleModel.count_loss_as`."""

    def __init__(self, encoder: Encoder, full_layers: int, mask_mode: str, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.hidden_size
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, 2))
        self.full_layers = full_layers
        self.mask_mode = mask_mode

    @property
    def pruning_layers(self) -> list[nn.Module]:
        """The layers that a pruning step follows."""
        return list(self.encoder.layer_stack())[self.full_layers :]

    def read(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """Hidden states [batch, positions, hidden] after the layers that read the whole input."""
        encoder = self.encoder
        hidden = encoder.assemble(encoder.embed(encoder.features(inputs)))
        return encoder.run(list(encoder.layer_stack())[: self.full_layers], hidden, bias)

    def score(self, hidden: Tensor) -> Tensor:
        """Z of every feature at a step, [batch, features, 2]."""
        return self.head(hidden[:, self.encoder.prefix :])

    def hide(self, hidden: Tensor, visible: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Hidden states and attention bias of the next layer, which shall see `visible` alone, in place.

        Args:
            hidden: [batch, positions, hidden].
            visible: floats [batch, features].
            bias: what hides padding.
        """
        visible = nn.functional.pad(visible, (self.encoder.prefix, 0), value=1.0)
        if self.mask_mode == "zero":
            return hidden * visible[..., None].to(hidden.dtype), bias
        return hidden, drop_bias(visible, bias, self.loss_share)

    def shed(self, hidden: Tensor, where: Tensor, visible: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Leave out what the next layer shall not see.

        Args:
            hidden: [batch, prefix + left, hidden].
            where: the place of each feature that is left, int64 [batch, left].
            visible: bool [batch, features], a part of those.

        Returns:
            The same for the features that stay, and the attention bias that hides fillers.
        """
        prefix = self.encoder.prefix
        features, order, bias = gather_visible(hidden[:, prefix:], visible.gather(1, where), prefix)
        return torch.cat([hidden[:, :prefix], features], dim=1), where.gather(1, order), bias


class ZeroingPredictor(Predictor):
    """Sees nothing of a feature that is not selected, its position included, in any of its layers.

    The published code zeroes hidden states before each layer: first the output of the embedding layer, after its
    normalisation and dropout, then what the layer before gave.
    """

    def __init__(self, encoder: Encoder, config: RationaleConfig) -> None:
        super().__init__(encoder, len(config.labels), config.head_dropout, config.mask_mode, config.pooling)
        self.zeroes_class_token = config.options["zero_class_token"]

    def forward(self, inputs: Tensor, visible: Tensor, bias: Tensor | None) -> Tensor:
        encoder = self.encoder
        hidden = encoder.assemble(encoder.embed(encoder.features(inputs)))  # [batch, positions, hidden]
        stays = nn.functional.pad(visible, (encoder.prefix, 0), value=1.0)[..., None].to(hidden.dtype)
        first = stays

        if self.zeroes_class_token:  # before the first layer alone
            first = stays * (torch.arange(stays.shape[1], device=stays.device) > 0)[:, None]

        for place, layer in enumerate(encoder.layer_stack()):
            hidden = encoder.run([layer], hidden * (stays if place else first), bias)

        return self.classifier(self.pool(encoder.finish(hidden), visible))


class PLMRModel(RationaleModel):
    """The model of `plmr`.

    At every step the features whose margin and that step's bias come above 0 are kept, or the best one of those still
    there. Selected is what the last step keeps. In `drop` mode and `eval()`, each layer after a step runs on the
    features kept alone.
    """

    generator: PruningGenerator

    @classmethod
    def build(cls, facts: RationaleConfig, encoder: EncoderSource, depth: Depth, options: Any) -> RationaleModel:
        predictor = encoder(depth.predictor)
        layers = check_layers(predictor)

        split = depth.generator
        if split is None or not 2 <= split < layers:
            raise InputError(
                f"plmr splits {layers} layers into generator and predictor; generator_layers must be between 2 and "
                f"{layers - 1}."
            )

        full_layers = split // 2 if options.full_layers is None else options.full_layers
        if not 1 <= full_layers < split:
            raise InputError(
                f"plmr.full_layers must be between 1 and {split - 1}, one less than generator_layers, "
                f"not {full_layers}."
            )

        if options.zero_class_token and (facts.task != "text" or facts.mask_mode != "zero"):
            raise InputError("plmr.zero_class_token is for texts with mask_mode=zero; leave it out.")
        if not facts.final_norm:
            raise InputError("plmr's early exit and its predictor read normalised states; leave final_norm out.")

        generator = encoder(split)
        del predictor.layer_stack()[:split]
        predictor.config.num_hidden_layers = layers - split
        facts.predictor, facts.generator = predictor.config.to_dict(), generator.config.to_dict()
        facts.share_embeddings = True
        facts.pooling = "first"  # the early exit and the classifier read the same
        facts.options = {
            "full_layers": full_layers,
            "biases": [0.0] * (split - full_layers - 1),
            "zero_class_token": options.zero_class_token,
            "zeroed": options.zeroed,
        }

        return cls(facts, predictor, generator)

    def build_predictor(self, config: RationaleConfig, encoder: Encoder) -> Predictor:
        if config.mask_mode == "zero" and self._zeroes_hidden_states(config):
            return ZeroingPredictor(encoder, config)
        return super().build_predictor(config, encoder)

    def build_generator(self, config: RationaleConfig, encoder: Encoder | None) -> nn.Module:
        assert encoder is not None
        return PruningGenerator(encoder, config.options["full_layers"], config.mask_mode, config.head_dropout)

    @property
    def biases(self) -> list[float]:
        """One a step; the last is the `margin_bias`."""
        return [*self.config.options["biases"], self.config.margin_bias]

    def draw_noise(self, rows: int, features: int, generator: torch.Generator) -> Tensor:
        """G of every step, [rows, steps, features, 2]."""
        shape = rows, len(self.biases), features, 2
        return gumbel_noise(torch.empty(shape, device=generator.device), generator)

    def select(self, inputs: Tensor, attention_mask: Tensor | None, sampling: Sampling | None = None) -> PLMRSelection:
        """Run the cascade; `sampling.noise` is [batch, steps, features, 2]."""
        feature, special = self.feature_positions(inputs, attention_mask)
        unit, bias = self.units(inputs, feature), padding_bias(attention_mask)
        hidden = self.generator.read(inputs, bias)
        if sampling is None:
            return self._decided(hidden, bias, feature, special, unit)
        return self._drawn(hidden, bias, feature, special, unit, sampling)

    def _drawn(
        self,
        hidden: Tensor,
        bias: Tensor | None,
        feature: Tensor,
        special: Tensor,
        unit: Tensor | None,
        sampling: Sampling,
    ) -> PLMRSelection:
        """Masks multiply: what was dropped stays dropped, and a layer sees the product so far."""
        generator, layers = self.generator, self.generator.pruning_layers
        full_logits = self.predictor.classifier(generator.encoder.finish(hidden[:, :1])[:, 0]).float()
        now, alive, margins, kept = bias, feature.float(), [], []

        for step, layer in enumerate(layers):
            hidden = generator.encoder.run([layer], hidden, now)
            z = mean_over_units(generator.score(hidden), unit).float()  # [batch, features, 2]
            noise = gumbel_noise(z) if sampling.noise is None else sampling.noise[:, step]
            log_selection = gumbel_log_softmax(z, at_units(noise, unit), sampling.temperature)
            alive = alive * straight_through_mask(log_selection, alive > 0, unit, self._limits_at(step, len(layers)))
            margins.append(z[..., 1] - z[..., 0])
            kept.append(alive)
            hidden, now = generator.hide(hidden, (alive + special.float()).clamp(max=1.0), bias)

        steps, masks = torch.stack(margins, dim=1), torch.stack(kept, dim=1)
        whole = cascade(steps)
        outlived = masks[:, :-1].detach().sum(dim=1)

        return PLMRSelection(feature, whole, unit, whole, None, alive, steps, outlived, masks, full_logits)

    def _decided(
        self, hidden: Tensor, bias: Tensor | None, feature: Tensor, special: Tensor, unit: Tensor | None
    ) -> PLMRSelection:
        """The deterministic rule at every step; the last one is left to `margin` and `deterministic_mask`."""
        generator, layers, biases = self.generator, self.generator.pruning_layers, self.biases
        drops = generator.mask_mode == "drop"
        where = torch.arange(feature.shape[1], device=feature.device).expand(feature.shape)
        alive, margins = feature, []
        outlived = margin = torch.zeros(feature.shape, device=feature.device)

        for step, layer in enumerate(layers):
            hidden = generator.encoder.run([layer], hidden, bias)
            z = generator.score(hidden).float()
            found = z[..., 1] - z[..., 0]  # [batch, left]

            if drops:
                found = torch.zeros_like(margin).scatter(1, where, found)

            found = mean_over_units(found[..., None], unit)[..., 0]
            margin = torch.where(alive, found, margin)
            margins.append(margin)

            if step + 1 == len(layers):
                break

            decisive = (margin + biases[step]).masked_fill(~alive, NEVER_SELECTED)
            alive = deterministic_mask(decisive, alive, unit, self._limits_at(step, len(layers)))
            outlived = outlived + alive.float()

            if drops:
                hidden, where, bias = generator.shed(hidden, where, alive | special)
            else:
                hidden, bias = generator.hide(hidden, (alive | special).float(), bias)

        steps = torch.stack(margins, dim=1)
        return PLMRSelection(feature, cascade(steps), unit, margins=steps, outlived=outlived)

    def _limits_at(self, step: int, steps: int) -> Limits | None:
        """The minimum holds at every step, the maximum at the last."""
        if self.limits is None or step + 1 == steps:
            return self.limits
        return Limits(self.limits.minimum)

    def margin(self, selection: Selection) -> Tensor:
        """The last step's margin and bias; of a feature shed before, `SHED` times the steps that it missed."""
        assert isinstance(selection, PLMRSelection)
        assert selection.margins is not None
        assert selection.outlived is not None
        missed = selection.margins.shape[1] - 1 - selection.outlived
        margin = torch.where(missed == 0, selection.margins[:, -1] + self.config.margin_bias, SHED * missed)
        return margin.masked_fill(~selection.feature, NEVER_SELECTED)

    def calibrate(self, select_all: Callable[[], list[Selection]], solve: Solve) -> list[Selection]:
        """Set one bias after the other: that of a step decides what the next one sees.

        All but the last are only to come near the schedule: of the biases that do, the one furthest from any margin is
        taken, because a feature that rounding sheds early changes all that follows.
        """
        steps = len(self.biases)
        self._set_biases([0.0] * steps)
        biases: list[float] = []
        selections: list[Selection] = []

        for step, share in enumerate(kept_shares(self.config.target_ratio, steps).tolist()):
            selections, found = select_all(), []
            for each in selections:
                assert isinstance(each, PLMRSelection)
                assert each.margins is not None
                assert each.outlived is not None
                found.append((each.margins[:, step], each.feature, each.feature & (each.outlived >= step), each.unit))

            if step + 1 == steps:
                biases.append(solve(found, self.config.target_ratio))
            else:
                biases.append(solve(found, share, Limits(self.config.min_selected), SLACK * share))

            self._set_biases([*biases, *[0.0] * (steps - step - 1)])

        return selections

    def _set_biases(self, biases: list[float]) -> None:
        self.config.options["biases"] = biases[:-1]
        self.config.margin_bias = biases[-1]

    def visible(self, inputs: Tensor, attention_mask: Tensor | None, mask: Tensor) -> Tensor:
        visible = super().visible(inputs, attention_mask, mask)
        if self._zeroes_hidden_states(self.config) or not self.config.options["zero_class_token"]:
            return visible
        return visible * (torch.arange(visible.shape[1], device=visible.device) > 0)

    @staticmethod
    def _zeroes_hidden_states(config: RationaleConfig) -> bool:
        """Runs of the first release zeroed the embeddings of features alone, and say nothing of it."""
        return config.options.get("zeroed", "features") == "hidden_states"


def check_layers(encoder: Encoder) -> int:
    """How many layers an encoder has.

    Raises:
        InputError: none that could be split.
    """
    if not encoder.can_drop:
        raise InputError("plmr splits the layers of a transformer; give --backbone a BERT, RoBERTa or ViT.")
    layers = len(encoder.layer_stack())
    if layers < 3:
        raise InputError(f"plmr splits an encoder of at least 3 layers, not of {layers}; take a deeper --backbone.")
    return layers


def kept_shares(target_ratio: float | Tensor, steps: int) -> Tensor:
    """The share of the features to keep after step i of n, ln((e^p · i + e · (n - i)) / n), [steps]."""
    last = target_ratio if isinstance(target_ratio, Tensor) else torch.tensor(target_ratio, dtype=torch.float64)
    i = torch.arange(1, steps + 1, dtype=last.dtype, device=last.device)
    return torch.log((last.exp() * i + torch.e * (steps - i)) / steps)


def cascade(margins: Tensor) -> Tensor:
    """Log probabilities to be dropped at some step and to be kept at all, [batch, features, 2].

    Args:
        margins: z_1 - z_0 of each step, [batch, steps, features].
    """
    keep = nn.functional.logsigmoid(margins).cumsum(dim=1)  # up to each step
    before = keep - nn.functional.logsigmoid(margins)
    drop = (before + nn.functional.logsigmoid(-margins)).logsumexp(dim=1)  # first dropped at one of them
    return torch.stack([drop, keep[:, -1]], dim=-1)

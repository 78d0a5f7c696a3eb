"""RTP: one model classifies and scores every token for every class in the same pass (arXiv 2508.11393).

The label is decided from the whole text. A rationale is a score of that pass and not the only thing that the decision
could read; what a label is worth from the rationale alone is what `RTPModel.rationale_logits` is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rekd_edge.modeling.configuration import RationaleConfig
from rekd_edge.modeling.constants import constant
from rekd_edge.modeling.encoders.encoder import Encoder
from rekd_edge.modeling.masking import padding_bias
from rekd_edge.modeling.model import (
    Depth,
    EncoderSource,
    RationaleModel,
    RationaleOutput,
    Sampling,
    Selection,
    Solve,
)
from rekd_edge.modeling.selection import NEVER_SELECTED, mean_over_units
from rekd_edge.modeling.towers import Predictor

__all__ = ["RTPModel", "RTPOutput", "RTPSelection", "class_scores", "marc_evidence", "of_class", "random_shares"]

SIGMA = 3.0
"""σ of a fresh model, and where the regulariser holds it."""
LOG_SIGMA = (-4.0, 6.0)
"""Bounds of log σ: from a token by itself to the whole text, and no overflow between."""


@dataclass(frozen=True, kw_only=True)
class RTPSelection(Selection):
    """A selection with what one pass says of every class; `logits` are [0, e] of the class predicted."""

    class_logits: Tensor
    """float32 [batch, classes], from the whole text."""
    evidence: Tensor
    """e, before the sigmoid of the mask λ, float32 [batch, features, classes]."""
    sigma: Tensor
    """float32 [batch, features, classes]."""


@dataclass(frozen=True, kw_only=True)
class RTPOutput(RationaleOutput):
    """A forward pass, and what a frozen copy says of rationale and complement."""

    selection: RTPSelection
    rationale_logits: Tensor | None = None
    """[batch, classes] of λ x + (1 - λ) b; None where no class was to be explained."""
    complement_logits: Tensor | None = None
    """[batch, classes] of (1 - λ) x + λ b."""
    blended_logits: Tensor | None = None
    """[batch, classes] of the shares that were given, from this model itself; None where none were."""


class BlendedPredictor(Predictor):
    """Classifies a text of which every token is blended with padding to some degree."""

    def __init__(self, encoder: Encoder, config: RationaleConfig) -> None:
        super().__init__(encoder, len(config.labels), config.head_dropout, config.mask_mode, config.pooling)
        self.config = config

    def forward(self, inputs: Tensor, visible: Tensor, bias: Tensor | None) -> Tensor:
        """Class logits [batch, classes].

        Args:
            inputs: token ids [batch, features].
            visible: floats [batch, features]: the share of each token's embedding that stays; padding's is the rest.
            bias: additive attention bias [batch, 1, 1, features] that hides padding.
        """
        embeddings = self.encoder.embed(inputs)
        padding = self.encoder.embed(torch.full_like(inputs[:1, :1], self.config.pad_token_id))
        share = visible[..., None].to(embeddings.dtype)
        return self.read(share * embeddings + (1 - share) * padding, bias)[0]

    def read(self, embeddings: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Class logits [batch, classes] and last hidden states [batch, features, hidden]."""
        hidden = self.encoder.layers(self.encoder.assemble(embeddings), bias)
        real = torch.ones_like(hidden[..., 0]) if bias is None else (bias[:, 0, 0] == 0).float()
        return self.classifier(self.pool(hidden, real)), hidden


class RTPModel(RationaleModel):
    """One encoder with a class head and a token head; there is no generator.

    `rationale_mask` and `selection_margin` are those of the class predicted: its evidence plus a calibrated bias, by
    the same rule as everywhere.
    """

    predictor: BlendedPredictor

    EXTRA_OUTPUTS: ClassVar[dict[str, dict[str, Any]]] = {
        "rationale_scores": {"dtype": "float32", "shape": ["batch", "features", "classes"]}
    }

    def __init__(self, config: RationaleConfig, predictor: Encoder, generator: Encoder | None) -> None:
        super().__init__(config, predictor, None)
        self.token_head = nn.Linear(predictor.hidden_size, 2 * len(config.labels))
        with torch.no_grad():
            self.token_head.weight.mul_(0.1)
            self.token_head.bias.zero_()
            self.token_head.bias[0::2] = math.log(SIGMA)

    @classmethod
    def build(cls, facts: RationaleConfig, encoder: EncoderSource, depth: Depth, options: Any) -> RationaleModel:
        predictor = encoder(depth.predictor)
        facts.predictor = predictor.config.to_dict()
        facts.options = {**facts.options, "sigma": options.sigma}
        return cls(facts, predictor, None)

    def build_predictor(self, config: RationaleConfig, encoder: Encoder) -> Predictor:
        return BlendedPredictor(encoder, config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        temperature: float = 1.0,
        noise: Tensor | None = None,
        random_ratio: float | None = None,
        fixed_masks: bool = False,
        explained: Tensor | None = None,
        freeze_class_head: bool = True,
        shares: Tensor | None = None,
    ) -> RTPOutput:
        """Classify and score; nothing is sampled, so what the base class takes beyond the text has no effect.

        Args:
            input_ids: int64 [batch, sequence].
            attention_mask: int64 [batch, sequence], 0 on padding.
            pixel_values: of no use here.
            temperature: of no use here.
            noise: of no use here.
            random_ratio: of no use here.
            fixed_masks: what scores the tokens learns nothing.
            explained: class ids int64 [batch], whose rationale and complement a frozen copy of this model classifies.
            freeze_class_head: the copy's class head learns nothing from that either.
            shares: floats [batch, features]: how much of each token stays in a blend that this model itself classifies
                too, and learns from; special tokens stay whole.
        """
        assert input_ids is not None
        selection = self.select(input_ids, attention_mask)

        if fixed_masks:
            assert selection.logits is not None
            selection = replace(
                selection,
                logits=selection.logits.detach(),
                evidence=selection.evidence.detach(),
                sigma=selection.sigma.detach(),
            )

        margin = self.margin(selection)
        mask = self.deterministic_mask(margin, selection)
        output = RTPOutput(selection.class_logits, mask, margin, selection=selection)

        if shares is not None:
            _, special = self.feature_positions(input_ids, attention_mask)
            visible = shares * selection.feature + special
            blended = self.predictor(input_ids, visible, padding_bias(attention_mask))
            output = replace(output, blended_logits=blended.float())

        if explained is None:
            return output

        share = of_class(class_scores(selection), explained)  # [batch, features]
        both = [share, (1 - share) * selection.feature]
        logits = self._frozen(input_ids, attention_mask, torch.cat(both), freeze_class_head)

        return replace(output, rationale_logits=logits[0], complement_logits=logits[1])

    def draw_noise(self, rows: int, features: int, generator: torch.Generator) -> Tensor:
        """Uniform numbers [rows, features, 2] for blends at random (`random_shares`)."""
        return torch.rand((rows, features, 2), device=generator.device, generator=generator)

    def select(self, inputs: Tensor, attention_mask: Tensor | None, sampling: Sampling | None = None) -> RTPSelection:
        """Class logits, and evidence of each token for each class; masks are not sampled."""
        feature, _ = self.feature_positions(inputs, attention_mask)
        unit = self.units(inputs, feature)
        class_logits, hidden = self.predictor.read(self.predictor.encoder.embed(inputs), padding_bias(attention_mask))
        heads = self.token_head(hidden).float().unflatten(-1, (-1, 2))  # [batch, features, classes, (log σ, w)]
        sigma = heads[..., 0].clamp(*LOG_SIGMA).exp()
        evidence = mean_over_units(marc_evidence(sigma, heads[..., 1], feature, self.config.options["sigma"]), unit)
        own = of_class(evidence, class_logits.argmax(dim=-1))

        return RTPSelection(
            feature=feature,
            logits=torch.stack([torch.zeros_like(own), own], dim=-1),
            unit=unit,
            class_logits=class_logits.float(),
            evidence=evidence,
            sigma=sigma,
        )

    def margin(self, selection: Selection) -> Tensor:
        """Evidence for the class predicted, plus the calibrated bias of that class."""
        assert isinstance(selection, RTPSelection)
        assert selection.logits is not None
        biases = constant(tuple(self.class_biases), selection.logits.device)
        bias = biases[selection.class_logits.argmax(dim=-1)][:, None]  # [batch, 1]
        return (selection.logits[..., 1] + bias).masked_fill(~selection.feature, NEVER_SELECTED)

    def classify(self, inputs: Tensor, attention_mask: Tensor | None, mask: Tensor, selection: Selection) -> Tensor:
        """Class logits of the WHOLE text, whatever the mask says: rationales are scores of the same pass.

        See `rationale_logits` for a decision from the rationale alone.
        """
        assert isinstance(selection, RTPSelection)
        return selection.class_logits

    def rationale_logits(self, inputs: Tensor, attention_mask: Tensor | None, mask: Tensor) -> Tensor:
        """Class logits float32 [batch, classes] of the mask's tokens alone, the others turned to padding."""
        return self.predictor(inputs, self.visible(inputs, attention_mask, mask), padding_bias(attention_mask)).float()

    def calibrate(self, select_all: Callable[[], list[Selection]], solve: Solve) -> list[Selection]:
        """Set a bias for every class, `class_biases`, on the texts that are given its label.

        Evidence for one class says nothing of the scale of another's: under one bias for all, the texts of one label
        would show a single token and those of another twice the target. `margin_bias` is that one bias, and that of a
        class that is never predicted.
        """
        options, config = self.config.options, self.config
        options.pop("class_biases", None)
        selections = super().calibrate(select_all, solve)
        biases = []

        for label, ratio in enumerate(options.get("class_ratios") or [config.target_ratio] * len(config.labels)):
            found = []
            for each in selections:
                assert isinstance(each, RTPSelection)
                assert each.logits is not None
                rows = each.class_logits.argmax(dim=-1) == label
                feature = each.feature[rows]
                unit = None if each.unit is None else each.unit[rows]
                found.append((each.logits[rows][..., 1], feature, feature, unit))

            predicted = any(feature.any() for _, feature, _, _ in found)
            biases.append(solve(found, ratio) if predicted else config.margin_bias)

        options["class_biases"] = biases
        return selections

    @property
    def class_biases(self) -> list[float]:
        """The bias on the evidence for each class."""
        return self.config.options.get("class_biases") or [self.config.margin_bias] * len(self.config.labels)

    def extra_outputs(self, output: RationaleOutput) -> dict[str, Tensor]:
        assert isinstance(output.selection, RTPSelection)
        return {"rationale_scores": class_scores(output.selection)}

    def extra_fields(self) -> dict[str, Any]:
        """`class_thresholds`: a token belongs to the rationale of a class where its score lies above the class's."""
        return {"class_thresholds": torch.sigmoid(-torch.tensor(self.class_biases, dtype=torch.float64)).tolist()}

    def _frozen(self, inputs: Tensor, attention_mask: Tensor | None, shares: Tensor, freeze_head: bool) -> Tensor:
        """Logits [2, batch, classes] of two blends of each text, given below each other: [2 · batch, features].

        The copy has this model's weights of the moment, and no dropout; gradients reach the shares alone, and the class
        head where it is not frozen.
        """
        predictor = self.predictor
        weights = {
            name: weight.detach() if freeze_head or name.startswith("encoder.") else weight
            for name, weight in predictor.named_parameters()
        }
        _, special = self.feature_positions(inputs, attention_mask)
        visible = shares + special.float().repeat(2, 1)
        bias = padding_bias(attention_mask)
        given = inputs.repeat(2, 1), visible, None if bias is None else bias.repeat(2, 1, 1, 1)
        training = predictor.training
        predictor.eval()

        try:
            logits = functional_call(predictor, weights, given)
        finally:
            predictor.train(training)

        return logits.float().unflatten(0, (2, -1))


def marc_evidence(sigma: Tensor, weight: Tensor, feature: Tensor, reading: str = "sender") -> Tensor:
    """e_(t,c) = Σ_j w_(j,c) exp(-(t - j)² / σ) over the features j, [batch, features, classes].

    Args:
        sigma: [batch, features, classes].
        weight: w, [batch, features, classes].
        feature: bool [batch, features].
        reading: `sender`: each j spreads by its own σ_(j,c) (the paper); `receiver`: each t gathers by its own σ_(t,c)
            (the published code).
    """
    place = torch.arange(feature.shape[1], device=feature.device)
    distance = (place[:, None] - place[None, :]).float().square()[None, :, :, None]  # [1, t, j, 1]
    spread = sigma[:, None, :, :] if reading == "sender" else sigma[:, :, None, :]
    sent = (weight * feature[..., None])[:, None, :, :]  # [batch, 1, j, classes]
    return (sent * torch.exp(-distance / spread)).sum(dim=2)


def class_scores(selection: RTPSelection) -> Tensor:
    """λ = sigmoid(e), [batch, features, classes]; 0 where a position is not a feature."""
    return torch.sigmoid(selection.evidence) * selection.feature[..., None]


def random_shares(noise: Tensor, least: float) -> Tensor:
    """Floats [batch, features] of 0 and 1: each token stays with a chance that a text draws between `least` and 1.

    Args:
        noise: uniform in [0, 1), [batch, features, 2]; the second number of a text's first position draws its chance.
        least: 0 to 1.
    """
    chance = least + (1 - least) * noise[:, :1, 1]  # [batch, 1]
    return (noise[..., 0] < chance).float()


def of_class(values: Tensor, classes: Tensor) -> Tensor:
    """From [batch, features, classes] those of one class a row, int64 [batch]: [batch, features]."""
    return values.gather(2, classes[:, None, None].expand(-1, values.shape[1], 1))[..., 0]

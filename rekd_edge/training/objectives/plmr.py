"""`plmr`: an encoder split into generator and predictor, arXiv 2501.03182, alone or distilled."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from rekd_edge.data import DataSource, TextFeatures
from rekd_edge.errors import InputError
from rekd_edge.modeling.encoders.encoder import Encoder
from rekd_edge.modeling.masking import padding_bias
from rekd_edge.modeling.plmr import PLMRSelection, check_layers, kept_shares
from rekd_edge.progress import say
from rekd_edge.settings import Count, NotNegative, Positive, Section
from rekd_edge.training import losses
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.objectives import Context, Moment, Terms, inputs_of, ratio_terms
from rekd_edge.training.objectives.distillation import distilled, has_teachers
from rekd_edge.training.preparation import Preprocessing, load_encoder

__all__ = ["Settings", "choose_split", "continuity_loss", "homogeneity", "objective", "prepare", "sparsity_loss"]

MEASURED_EXAMPLES = 64
FLAT = 0.05
"""A range of homogeneity below which no split is preferred; all-MiniLM-L6-v2 has 0.24, random weights 0.01."""


@dataclass(frozen=True)
class Settings(Section):
    """PLMR's own settings; the defaults are those of the paper and its code, where nothing else is said."""

    section = "plmr"

    full_layers: Count | None = None
    """Layers that read the whole input before pruning begins; half of the generator's by default."""
    temperature: Positive = 1.0
    """τ of the Gumbel-Softmax, the same throughout."""
    lambda_sparsity: NotNegative = 5.0
    """λ_s: weight of |share kept - share of the schedule|, summed over the pruning steps."""
    lambda_continuity: NotNegative = 10.0
    """λ_c: weight of the total variation of the mask, summed over the pruning steps."""
    full_text_weight: NotNegative = 2.0
    """Weight of the task loss on the whole input, read after the last layer that sees all of it."""
    gap_weight: NotNegative = 1.0
    """Weight of the rationale's task loss minus that of the whole input."""
    gap: Literal["hinge", "signed", "absolute"] = "hinge"
    """How that difference counts: where it is above 0 (`hinge`, as the paper words it), `signed` (the published code:
    2 · rationale + 1 · whole input in all), or by its `absolute` value."""
    denominators: Literal["features", "positions"] = "features"
    """What shares and means are taken over: `features`, or `positions` (the published code, texts only): the share kept
    is over all tokens attended to, special ones included, and continuity over the text padded to `max_length`."""
    zeroed: Literal["hidden_states", "features"] = "hidden_states"
    """What `mask_mode=zero` zeroes for the predictor: `hidden_states` (the published code), before every layer, so that
    positions are zeroed too; or the embeddings of `features` alone, to which their positions are then added."""
    zero_class_token: bool = False
    """Zero the class token before the predictor's first layer too, as the published code does (texts, `zero`)."""


def prepare(config: TrainingConfig, data: DataSource, preprocessing: Preprocessing) -> TrainingConfig:
    """Refuse settings that the method cannot follow; choose the split where none is given.

    Raises:
        InputError: such a setting, or an encoder that cannot be split.
    """
    if config.count_all_positions:
        raise InputError("plmr counts features alone; set count_all_positions=false.")
    if config.lambda_contiguity:
        raise InputError("plmr has a weight of its own for runs of features; set plmr.lambda_continuity instead.")
    if config.options.denominators == "positions" and data.task != "text":
        raise InputError("Images have no padding to count; set plmr.denominators=features.")

    config = replace(config, share_embeddings=True, pooling="first")  # one encoder, whose early exit reads that
    if config.generator_layers is not None:
        return config

    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # an encoder without weights of its own
        encoder = load_encoder(config.backbone, config.layers, preprocessing)

    check_layers(encoder)
    found = homogeneity(encoder, data, preprocessing)
    split = choose_split(found)
    numbers = " ".join(f"{value:.2f}" for value in found)
    say(f"plmr: features resemble each other by {numbers} (input, then each layer): {split} layers select.")

    return replace(config, generator_layers=split)


def choose_split(homogeneities: NDArray[np.float64]) -> int:
    """How many layers select: those after which features still differ enough to be told apart.

    From the place where features differ most, the generator goes on for as long as their homogeneity stays below the
    midpoint between the lowest and the highest; at least 2 layers, and 1 is left to the predictor. Where it never rises
    above that again, or hardly changes at all, homogeneity gives no reason for any split: half of the layers.

    Args:
        homogeneities: of the embeddings and after each of at least 3 layers, [1 + layers].
    """
    layers, lowest = len(homogeneities) - 1, int(np.argmin(homogeneities))
    middle = (homogeneities.min() + homogeneities.max()) / 2
    above = np.flatnonzero(homogeneities[lowest:] > middle)
    alike = bool(len(above)) and np.ptp(homogeneities) >= FLAT
    last = lowest + int(above[0]) - 1 if alike else layers // 2
    return min(max(last, 2), layers - 1)


@torch.no_grad()
def homogeneity(encoder: Encoder, data: DataSource, preprocessing: Preprocessing) -> NDArray[np.float64]:
    """Mean cosine similarity of the hidden states of two different features of one example, [1 + layers].

    It is measured on the embeddings and after each layer, over a few training examples.
    """
    encoder.eval()
    train = data.split("train")
    chosen = np.random.default_rng(0).permutation(len(train))[:MEASURED_EXAMPLES]
    features, collate = preprocessing.features(train.select(sorted(chosen.tolist()))), preprocessing.collator()
    measured = []

    for i in range(len(features)):
        batch = inputs_of(collate([features[i]]))
        bias, inputs = padding_bias(batch.get("attention_mask")), batch.get("input_ids", batch.get("pixel_values"))
        assert inputs is not None
        hidden, states = encoder.assemble(encoder.embed(encoder.features(inputs))), []

        for layers in [[], *([layer] for layer in encoder.layer_stack())]:
            hidden = encoder.run(layers, hidden, bias)
            found = hidden[0, encoder.prefix :]
            states.append(found[features.features[i]] if isinstance(features, TextFeatures) else found)

        if len(states[0]) > 1:
            measured.append([mean_similarity(found) for found in states])

    return np.array(measured or np.zeros((1, len(encoder.layer_stack()) + 1))).mean(axis=0)


def mean_similarity(states: Tensor) -> float:
    """Mean cosine similarity of two different rows of [features, hidden], of which there are at least 2."""
    count = len(states)
    directions = nn.functional.normalize(states.double(), dim=-1)
    return float((directions.sum(dim=0).square().sum() - count) / (count * (count - 1)))


def objective(model: nn.Module, batch: dict[str, Tensor], moment: Moment, context: Context) -> Terms:
    """The losses of PLMR, mixed with those of teachers where there are any (equation 11 of arXiv 2601.22531)."""
    settings, labels = context.config.options, batch["labels"]
    output = model(**inputs_of(batch), temperature=settings.temperature, noise=moment.noise)
    selection = output.selection
    assert isinstance(selection, PLMRSelection)
    assert selection.kept is not None
    assert selection.full_logits is not None
    task = losses.task_loss(output.logits, labels)
    full_text = losses.task_loss(selection.full_logits, labels)
    rows = torch.full_like(task, len(labels))
    gap = gap_loss(losses.batch_share(task * rows, rows), losses.batch_share(full_text * rows, rows), settings.gap)

    counted, length = selection.feature, None

    if settings.denominators == "positions":
        counted, length = batch["attention_mask"] == 1, context.max_length

    target = losses.batch_mean(context.ratios(labels))
    sparsity = sparsity_loss(selection.kept, counted, target)
    continuity = continuity_loss(selection.kept, selection.feature, context.grid, length)

    loss = task + settings.lambda_sparsity * sparsity + settings.lambda_continuity * continuity
    loss = loss + settings.full_text_weight * full_text + settings.gap_weight * gap
    terms = {
        "loss": loss,
        "task": task,
        "full_text": full_text,
        "gap": gap,
        "sparsity": sparsity,
        "continuity": continuity,
        **ratio_terms(output),
    }

    if not has_teachers(batch, context):
        return terms

    # log S is the distribution that masks are drawn from, which no temperature changes
    return distilled(terms, output, batch, moment, context, selection_temperature=1.0)


def sparsity_loss(kept: Tensor, counted: Tensor, target_ratio: float | Tensor) -> Tensor:
    """Σ_i |share kept after step i - its share of the schedule|; shares are counted over the batch.

    Args:
        kept: the mask after each step, floats [batch, steps, features].
        counted: bool [batch, features], the positions that a share is of.
        target_ratio: p, of the last step.
    """
    shares = losses.batch_share((kept * counted[:, None]).sum(dim=(0, 2)), counted.sum())  # [steps]
    target = torch.as_tensor(target_ratio, dtype=kept.dtype, device=kept.device)
    return (shares - kept_shares(target, kept.shape[1])).abs().sum()


def continuity_loss(
    kept: Tensor, feature: Tensor, grid: tuple[int, int] | None = None, length: int | None = None
) -> Tensor:
    """Σ_i of the mean |m_(i,t) - m_(i,t-1)| over neighbours, m_i the mask after step i.

    Args:
        kept: the mask after each step, floats [batch, steps, features], 0 where a position is not a feature.
        feature: bool [batch, features]; pairs with a position that is none don't count, unless `length` is given.
        grid: rows and columns of patches; None for text.
        length: the published code's mean over all pairs of a text padded to this many tokens, the class token apart.
    """
    if length is not None:
        padded = nn.functional.pad(kept, (0, length - kept.shape[-1]))
        return padded[..., 1:].diff(dim=-1).abs().mean(dim=(0, 2)).sum()

    steps = kept.shape[1]
    mean = losses.contiguity_loss(kept.flatten(0, 1), feature.repeat_interleave(steps, dim=0), grid)
    return steps * mean


def gap_loss(rationale: Tensor, full_text: Tensor, kind: str) -> Tensor:
    """The rationale's task loss minus that of the whole input: `signed`, its `hinge` at 0 or its `absolute` value."""
    difference = rationale - full_text
    return {"signed": difference, "hinge": difference.clamp(min=0), "absolute": difference.abs()}[kind]

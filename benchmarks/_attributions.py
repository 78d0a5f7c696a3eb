"""What a classifier rests on by its explainers: a score for each feature or word of a text.

Attention, input x gradient and integrated gradients (captum) score pieces. Occlusion, LIME and KernelSHAP (lime, shap)
score whitespace words; a word that is left out becomes [UNK]. All explain the probability of one label.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import shap
import torch
from captum.attr import InputXGradient, IntegratedGradients
from lime.lime_text import LimeTextExplainer
from numpy.typing import NDArray
from torch import Tensor

from rekd_edge.data.eraser import words_of
from rekd_edge.evaluation import probabilities
from rekd_edge.evaluation.words import in_pieces, in_words
from rekd_edge.modeling.masking import padding_bias
from rekd_edge.systems import RunSystem, TextRows

__all__ = ["ATTRIBUTIONS", "Explained"]

SEED = 2026
STEPS = 20
"""Of integrated gradients."""
LEFT_OUT = "[UNK]"
Scores = NDArray[np.float64]


class Explained:
    """One text and a `cls` run that classified it.

    Args:
        system: the run.
        text: no longer than it reads.
        target: the label id whose probability is explained.
        samples: how often LIME and KernelSHAP ask.
    """

    def __init__(self, system: RunSystem, text: str, target: int, samples: int) -> None:
        self.system, self.text, self.target, self.samples = system, text, target, samples
        self.words = words_of(text)
        rows = system.encode([text])
        assert isinstance(rows, TextRows)
        self.rows, self.offsets = rows, rows.offsets(0)
        self.feature = np.array(rows.encoded[0].feature, dtype=bool)

    def of_words(self, pieces: Scores) -> Scores:
        """Scores of pieces as scores of words."""
        return in_words(self.words, self.offsets, np.zeros(len(pieces), dtype=bool), pieces)[1]

    def asked(self, kept: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities `[n, classes]` of the text without the words that are 0 in `kept` `[n, words]`."""
        masks = [~in_pieces(self.words, self.offsets, row.astype(bool)) for row in kept]
        many = TextRows(self.rows.encoded * len(kept), self.rows.blank_id).blanked(masks)
        return probabilities(self.system.answer(many).logits)

    @property
    def ids(self) -> Tensor:
        """Token ids `[1, positions]`."""
        return torch.tensor([self.rows.encoded[0].ids])


def attention(text: Explained) -> Scores:
    """How much attention each piece receives in the last layer, a mean over heads and positions."""
    predictor = text.system.model.predictor
    inner = predictor.encoder.layer_stack()[-1].attention.self
    seen: list[Tensor] = []
    hook = inner.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        text.system.answer(text.rows)
        hook.remove()
        hidden = seen[0]
        heads = inner.num_attention_heads
        query, key = (layer(hidden).unflatten(-1, (heads, -1)).transpose(1, 2) for layer in (inner.query, inner.key))
        weights = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(dim=-1)

    return text.of_words(weights.mean(dim=(0, 1, 2)).numpy()[text.feature].astype(np.float64))


def input_x_gradient(text: Explained) -> Scores:
    """The embedding of each piece times its gradient, summed."""
    forward, embedded, _ = _from_embeddings(text)
    found = InputXGradient(forward).attribute(embedded, target=text.target)
    return _summed(text, found)


def integrated_gradients(text: Explained) -> Scores:
    """The same along the way from [UNK] at every piece."""
    forward, embedded, blank = _from_embeddings(text)
    found = IntegratedGradients(forward).attribute(embedded, blank, target=text.target, n_steps=STEPS)
    return _summed(text, found)


def occlusion(text: Explained) -> Scores:
    """What each word takes away when it is left out."""
    count = len(text.words)
    scores = text.asked(np.concatenate([np.ones((1, count)), 1 - np.eye(count)]))[:, text.target]
    return scores[0] - scores[1:]


def lime(text: Explained) -> Scores:
    """Weights of LIME's linear model."""

    def classify(texts: list[str]) -> NDArray[np.float64]:
        return text.asked(np.array([[word != LEFT_OUT for word in each.split()] for each in texts]))

    explainer = LimeTextExplainer(split_expression=r"\s+", bow=False, mask_string=LEFT_OUT, random_state=SEED)
    found = explainer.explain_instance(
        " ".join(text.text.split()),
        classify,
        labels=[text.target],
        num_features=len(text.words),
        num_samples=text.samples,
    )
    scores = np.zeros(len(text.words))
    for place, weight in found.as_map()[text.target]:
        scores[place] = weight
    return scores


def kernel_shap(text: Explained) -> Scores:
    """Shapley values by KernelSHAP's regression, against a text of [UNK]."""
    np.random.seed(SEED)  # shap draws from it
    count = len(text.words)
    explainer = shap.KernelExplainer(lambda kept: text.asked(kept)[:, text.target], np.zeros((1, count)))
    return np.asarray(explainer.shap_values(np.ones((1, count)), nsamples=text.samples, l1_reg=0, silent=True))[0]


ATTRIBUTIONS: dict[str, Callable[[Explained], Scores]] = {
    "attention": attention,
    "input-x-gradient": input_x_gradient,
    "integrated-gradients": integrated_gradients,
    "occlusion": occlusion,
    "lime": lime,
    "kernel-shap": kernel_shap,
}


def _from_embeddings(text: Explained) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """Probabilities as a function of the embeddings, these, and those of a text of [UNK]."""
    predictor = text.system.model.predictor
    encoder, ids = predictor.encoder, text.ids
    blank = torch.where(torch.from_numpy(text.feature)[None], text.rows.blank_id, ids)

    def forward(embedded: Tensor) -> Tensor:
        everything = torch.ones(embedded.shape[:2])
        hidden = encoder.layers(encoder.assemble(embedded), padding_bias(everything.long()))
        return predictor.classifier(predictor.pool(hidden, everything)).softmax(dim=-1)

    with torch.no_grad():
        return forward, encoder.embed(encoder.features(ids)), encoder.embed(encoder.features(blank))


def _summed(text: Explained, found: Tensor) -> Scores:
    return text.of_words(found.sum(dim=-1)[0].detach().numpy()[text.feature].astype(np.float64))

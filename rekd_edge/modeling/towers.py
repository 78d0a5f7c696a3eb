"""The two towers of a rationale model: the generator selects, the predictor classifies what was selected."""

from __future__ import annotations

import math

from torch import Tensor, nn

from rekd_edge.errors import InputError
from rekd_edge.modeling.encoders import Encoder
from rekd_edge.modeling.encoders.encoder import mean_of_visible
from rekd_edge.modeling.masking import drop_bias, gather_visible

__all__ = ["Generator", "Predictor"]


class Generator(nn.Module):
    """Maps every feature to two selection logits, Z = g(X)."""

    def __init__(self, encoder: Encoder, head_hidden: int | None, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.hidden_size

        if head_hidden is None:
            self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, 2))
        else:
            self.head = nn.Sequential(
                nn.Linear(width, head_hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(head_hidden, 2)
            )

    def forward(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """Selection logits [batch, features, 2] of token ids or pixels."""
        encoder = self.encoder
        hidden = encoder.layers(encoder.assemble(encoder.embed(encoder.features(inputs))), bias)
        return self.head(hidden[:, encoder.prefix :])

    def begin_at(self, ratio: float) -> None:
        """Initialise the head to sample about this share of the features (arXiv 1708.02002, section 3.3)."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, 0.0)
        nn.init.constant_(last.bias[1:], math.log(ratio / (1.0 - ratio)))


class Predictor(nn.Module):
    """Classifies from the masked features, Q = f(M ⊙ X)  (equation 4)."""

    loss_share: float | Tensor = 1.0
    """See `RationaleModel.count_loss_as`."""
    embeds_first: bool = False
    """Gather embeddings instead of features: the generator has embedded all of them already."""

    def __init__(self, encoder: Encoder, classes: int, dropout: float, mask_mode: str, pooling: str = "first") -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(encoder.hidden_size, classes))
        self.mask_mode = mask_mode

        if mask_mode == "drop" and not encoder.can_drop:
            raise InputError(
                "Features left out of a recurrence or convolution change their neighbours; set mask_mode=zero."
            )

    def forward(self, inputs: Tensor, visible: Tensor, bias: Tensor | None) -> Tensor:
        """Class logits [batch, classes].

        Args:
            inputs: token ids or pixels.
            visible: floats or bool [batch, features], 1 where the predictor may look: the rationale and special tokens.
            bias: additive attention bias [batch, 1, 1, positions] that hides padding, or None.
        """
        features, where = self.encoder.features(inputs), None
        seen = visible.float()
        if bias is not None:
            seen = seen * (bias[:, 0, 0] == 0)  # padding may be sampled, but is never seen

        if self.mask_mode == "drop" and self.training:
            positions = nn.functional.pad(visible, (self.encoder.prefix, 0), value=1.0)
            bias = drop_bias(positions, bias, self.loss_share)
        elif self.mask_mode == "drop":
            if self.embeds_first:
                features = self.encoder.embed(features)
            features, where, bias = gather_visible(features, visible.bool(), self.encoder.prefix)
            seen = (bias[:, 0, 0, self.encoder.prefix :] == 0).float()

        embedded = self.embeds_first and where is not None
        embeddings = features if embedded else self.encoder.embed(features)

        if self.mask_mode == "zero":
            embeddings = embeddings * visible[..., None].to(embeddings.dtype)

        hidden = self.encoder.layers(self.encoder.assemble(embeddings, where), bias)
        return self.classifier(self.pool(hidden, seen))

    def pool(self, hidden: Tensor, seen: Tensor) -> Tensor:
        """Pool [batch, positions, hidden] to what the classifier reads; `seen` is [batch, features]."""
        if self.pooling == "mean":
            return mean_of_visible(hidden[:, self.encoder.prefix :], seen, self.encoder.hidden_size)
        return self.encoder.pool(hidden, seen)

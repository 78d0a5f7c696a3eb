"""Small networks of other families on a transformer's features: its word embeddings, or its projected patches.

Rationale distillation needs teacher and student to share features, not the architecture. Such a network takes from a
backbone (its donor) the width, the embeddings and the preprocessing of raw inputs into features.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from rekd_edge.modeling.encoders.encoder import Encoder, cut_patches, mean_of_visible, project_patches

__all__ = ["ImageEncoder", "SmallNet", "TextEncoder", "real_positions"]

_SHARED = ("hidden_size", "hidden_dropout_prob", "initializer_range")
_TAKEN = {"text": (*_SHARED, "vocab_size"), "image": (*_SHARED, "image_size", "patch_size", "num_channels")}


class SmallNet(nn.Module):
    """Normalised embeddings of a donor, followed by layers of the same width."""

    config_class: ClassVar[type[PretrainedConfig]]
    donors: ClassVar[tuple[str, ...]]
    """`model_type` of the backbones that it can take features from."""
    default_layers: ClassVar[int]

    def __init__(self, config: Any, layers: list[nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.embedding: nn.Module

        if hasattr(config, "patch_size"):  # PyTorch's own initialisation: the bias keeps a patch's brightness
            self.embedding = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)
        else:
            table = torch.randn(config.vocab_size, config.hidden_size) * config.initializer_range
            self.embedding = nn.Embedding.from_pretrained(table, freeze=False)

        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(layers)

    @classmethod
    def config_for(cls, donor: PretrainedConfig) -> PretrainedConfig:
        """The configuration of such a network on the features of a donor."""
        taken = _TAKEN["image" if hasattr(donor, "patch_size") else "text"]
        config_class: Any = cls.config_class  # transformers 5 types the fields of every family, not those of ours
        return config_class(num_hidden_layers=cls.default_layers, **{name: getattr(donor, name) for name in taken})


class SmallNetEncoder(Encoder):
    """Classifies from the normalised mean of the visible positions. Embeddings are normalised before masking, because a
    normalisation after it would undo the scale of the mask, and with it the gradient that decides what to select."""

    can_drop = False
    embedding_path = "embedding"

    def assemble(self, embeddings: Tensor, where: Tensor | None = None) -> Tensor:
        return self.backbone.dropout(embeddings)

    def layer_stack(self) -> nn.ModuleList:
        return self.backbone.layers

    def pool(self, hidden: Tensor, visible: Tensor) -> Tensor:
        return mean_of_visible(hidden, visible, self.hidden_size)


class TextEncoder(SmallNetEncoder):
    """Reads word embeddings."""

    task = "text"

    def embed(self, features: Tensor) -> Tensor:
        return self.backbone.norm(self.embedding(features))


class ImageEncoder(SmallNetEncoder):
    """Reads projected patches."""

    task = "image"

    def features(self, inputs: Tensor) -> Tensor:
        return cut_patches(inputs, self.config.patch_size)

    def embed(self, features: Tensor) -> Tensor:
        return self.backbone.norm(project_patches(features, self.embedding))


def real_positions(hidden: Tensor, bias: Tensor | None) -> Tensor:
    """Which positions of [batch, positions, hidden] are not padding, by an additive attention bias
    [batch, 1, 1, positions]: bool [batch, positions]."""
    if bias is None:
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    return bias[:, 0, 0] == 0

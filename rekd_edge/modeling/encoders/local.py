"""A generator that costs next to nothing: narrow convolutions on the embeddings that the predictor has anyway.

    X = embed(F)          # [batch, features, embedding]  the predictor's word embeddings or projected patches
    H = assemble(X)       # [batch, features, width]      normalised, projected to a few channels
    H = layers(H, bias)   # [batch, features, width]      residual convolutions

Each step sees three positions (3 x 3 patches), which on text lie ever further apart. So whether a feature is selected
depends on the features within `reach` of it and on nothing else, unless `context` adds the mean of the whole input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from rekd_edge.modeling.encoders.encoder import Encoder, cut_patches, mean_of_visible, project_patches
from rekd_edge.modeling.encoders.small import real_positions

__all__ = ["LocalEncoder", "LocalNet"]

KERNEL = 3
WIDTH = 64
STEPS = {"text": 3, "image": 2}

_TAKEN = {"text": ("vocab_size",), "image": ("image_size", "patch_size", "num_channels")}


class LocalConfig(PretrainedConfig):
    """`hidden_size` is the width of the convolutions, which `num_hidden_layers` counts; `embedding_size` that of the
    embeddings."""

    model_type = "rekd-local"


AutoConfig.register(LocalConfig.model_type, LocalConfig)


class LocalNet(nn.Module):
    """The embeddings of a donor, a projection to a few channels, and convolutions."""

    config_class = LocalConfig
    donors = ("bert", "roberta", "vit")

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        width, embedding = config.hidden_size, config.embedding_size
        self.embedding: nn.Module
        self.positions: Tensor | None
        steps: list[Any]

        if hasattr(config, "patch_size"):
            self.embedding = nn.Conv2d(config.num_channels, embedding, config.patch_size, config.patch_size)
            side = config.image_size // config.patch_size
            self.positions = nn.Parameter(torch.randn(side * side, width) * config.initializer_range)
            steps = [nn.Conv2d(width, width, KERNEL, padding=1) for _ in dilations(config)]
        else:
            table = torch.randn(config.vocab_size, embedding) * config.initializer_range
            self.embedding = nn.Embedding.from_pretrained(table, freeze=False)
            self.positions = None
            steps = [nn.Conv1d(width, width, KERNEL, padding=d, dilation=d) for d in dilations(config)]

        self.norm = nn.LayerNorm(embedding)
        self.projection = nn.Linear(embedding, width)
        self.steps = nn.ModuleList(steps)
        self.context = nn.Linear(width, width) if config.context else None
        self.final_norm = nn.LayerNorm(width)

        for step in steps:
            nn.init.kaiming_normal_(step.weight, nonlinearity="relu")
            nn.init.zeros_(step.bias)

    @classmethod
    def config_for(cls, donor: PretrainedConfig, width: int = WIDTH, context: bool = False) -> PretrainedConfig:
        """The configuration of such a net on a donor's features.

        Args:
            donor: the backbone whose embeddings it reads.
            width: channels of the convolutions.
            context: add the mean over the whole input, at the cost of locality.
        """
        task = "image" if hasattr(donor, "patch_size") else "text"
        config_class: Any = cls.config_class  # transformers 5 types the fields of every family, not those of ours
        return config_class(
            embedding_size=donor.hidden_size,
            hidden_size=width,
            num_hidden_layers=STEPS[task],
            initializer_range=donor.initializer_range,
            context=context,
            **{name: getattr(donor, name) for name in _TAKEN[task]},
        )


def dilations(config: Any) -> list[int]:
    """How far apart the positions lie that each step sees: doubling on text, neighbours on images."""
    steps = range(config.num_hidden_layers)
    return [1 for _ in steps] if hasattr(config, "patch_size") else [2**step for step in steps]


class LocalEncoder(Encoder):
    """Selects from what is near. Its embeddings are the predictor's; its other weights start untrained."""

    net = LocalNet
    can_drop = False
    reads_predictor = True
    embedding_path = "embedding"

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.task = "image" if hasattr(self.config, "patch_size") else "text"

    @property
    def embedding_size(self) -> int:
        return self.config.embedding_size

    @property
    def reach(self) -> int | None:
        """How many features to either side (patches: in each direction) a margin depends on; None with `context`."""
        return None if self.config.context else sum(dilations(self.config)) * (KERNEL // 2)

    def features(self, inputs: Tensor) -> Tensor:
        return cut_patches(inputs, self.config.patch_size) if self.task == "image" else inputs

    def embed(self, features: Tensor) -> Tensor:
        return project_patches(features, self.embedding) if self.task == "image" else self.embedding(features)

    def assemble(self, embeddings: Tensor, where: Tensor | None = None) -> Tensor:
        hidden = self.backbone.projection(self.backbone.norm(embeddings))
        return hidden if self.backbone.positions is None else hidden + self.backbone.positions

    def layer_stack(self) -> nn.ModuleList:
        return self.backbone.steps

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """Beyond the ends of a text, as beyond the border of an image, every convolution sees zeros."""
        real = real_positions(hidden, bias)  # [batch, features]
        channels = self.with_context(hidden, real).transpose(1, 2)  # [batch, width, features]
        padding = None if bias is None else real[:, None].to(hidden.dtype)  # [batch, 1, features]

        if self.task == "image":
            side = self.config.image_size // self.config.patch_size
            channels = channels.unflatten(2, (side, side))  # [batch, width, rows, columns]

        for convolution in self.layer_stack():
            channels = self.step(residual, convolution, channels, padding)

        if self.task == "image":
            channels = channels.flatten(2)

        return self.finish(channels.transpose(1, 2))

    def finish(self, hidden: Tensor) -> Tensor:
        return self.backbone.final_norm(hidden)

    def with_context(self, hidden: Tensor, real: Tensor) -> Tensor:
        """[batch, features, width] plus what the mean over the real features, bool [batch, features], says."""
        if self.backbone.context is None:
            return hidden
        return hidden + self.backbone.context(self.pool(hidden, real.to(hidden.dtype)))[:, None]

    def pool(self, hidden: Tensor, visible: Tensor) -> Tensor:
        return mean_of_visible(hidden, visible, self.hidden_size)


def residual(convolution: nn.Module, channels: Tensor, real: Tensor | None) -> Tensor:
    """One step on [batch, width, ...]; `real` [batch, 1, features] is 0 on padding, None where there is none."""
    seen = channels if real is None else channels * real
    return channels + nn.functional.relu(convolution(seen))

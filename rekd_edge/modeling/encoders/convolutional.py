"""Convolutional nets: on a text transformer's word embeddings, and on an image transformer's patch grid.

A convolution is written as one product of every position's window, so that the export has a single way of making
products int8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from rekd_edge.modeling.encoders.small import ImageEncoder, SmallNet, TextEncoder, real_positions

__all__ = ["CNN", "CNNEncoder", "ResNet", "ResNetEncoder", "neighbours"]


class CNNConfig(PretrainedConfig):
    """`num_hidden_layers` counts convolutions of width 3, each with a residual."""

    model_type = "rekd-cnn"


class ResNetConfig(PretrainedConfig):
    """`num_hidden_layers` counts convolutions over 3 x 3 patches, each with a residual."""

    model_type = "rekd-resnet"


AutoConfig.register(CNNConfig.model_type, CNNConfig)
AutoConfig.register(ResNetConfig.model_type, ResNetConfig)


def convolutions(config: Any, window: int) -> list[nn.Module]:
    """One product a layer, of `window` places side by side, initialised for rectifiers (arXiv 1502.01852)."""
    layers = [nn.Linear(window * config.hidden_size, config.hidden_size) for _ in range(config.num_hidden_layers)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    return [*layers]


class CNN(SmallNet):
    """Residual convolutions over three tokens: x + GELU(W [x before, x, x after])."""

    config_class = CNNConfig
    donors = ("bert", "roberta")
    default_layers = 2

    def __init__(self, config: Any) -> None:
        super().__init__(config, convolutions(config, 3))


class CNNEncoder(TextEncoder):
    """Beyond a text's end every convolution sees zeros, as before its beginning."""

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        real = real_positions(hidden, bias)[..., None]  # [batch, positions, 1]
        for convolution in self.layer_stack():
            hidden = self.step(read_line, convolution, hidden, real)
        return hidden


class ResNet(SmallNet):
    """Residual convolutions over 3 x 3 patches, after a learned embedding of each place: what a few selected patches
    show says little without where they lie."""

    config_class = ResNetConfig
    donors = ("vit",)
    default_layers = 2

    def __init__(self, config: Any) -> None:
        super().__init__(config, convolutions(config, 9))
        side = config.image_size // config.patch_size
        self.positions = nn.Parameter(torch.randn(side, side, config.hidden_size))  # as large as a normalised patch


class ResNetEncoder(ImageEncoder):
    """Sees every patch among those around it."""

    def assemble(self, embeddings: Tensor, where: Tensor | None = None) -> Tensor:
        return super().assemble(embeddings + self.backbone.positions.flatten(0, 1))

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        grid = hidden.unflatten(1, self.backbone.positions.shape[:2])  # [batch, rows, columns, hidden]
        for convolution in self.layer_stack():
            grid = self.step(read_grid, convolution, grid)
        return grid.flatten(1, 2)


def read_line(convolution: nn.Module, hidden: Tensor, real: Tensor) -> Tensor:
    """[batch, positions, hidden] and what is beside each position, as far as it is real, bool [batch, positions, 1]."""
    return hidden + nn.functional.gelu(convolution(neighbours(hidden * real, 1)))


def read_grid(convolution: nn.Module, grid: Tensor) -> Tensor:
    """[batch, rows, columns, hidden] and the eight places around each."""
    return grid + nn.functional.gelu(convolution(neighbours(neighbours(grid, 1), 2)))


def neighbours(hidden: Tensor, axis: int) -> Tensor:
    """[..., hidden] to [..., 3 · hidden]: what stands before each place along an axis, itself, and what comes after;
    zeros beyond the ends."""
    beyond = [0, 0] * (hidden.dim() - 1 - axis) + [1, 1]  # innermost axis first
    padded = nn.functional.pad(hidden, beyond)
    before, after = ((slice(None),) * axis + (part,) for part in (slice(None, -2), slice(2, None)))
    return torch.cat([padded[before], hidden, padded[after]], dim=-1)

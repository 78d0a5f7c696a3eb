"""Convolutional networks on the word embeddings of a text transformer, or on the patch grid of an image transformer.

A convolution is written as one matrix product over the window of each position, so that the int8 export handles it like
any other product.
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
    """One linear layer over `window` adjacent positions per step, initialised for rectifiers (arXiv 1502.01852)."""
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
    """Beyond both ends of a text every convolution sees zeros."""

    net = CNN

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        real = real_positions(hidden, bias)[..., None]  # [batch, positions, 1]
        for convolution in self.layer_stack():
            hidden = self.step(read_line, convolution, hidden, real)
        return hidden


class ResNet(SmallNet):
    """Residual convolutions over 3 x 3 patches, after a learned position embedding: a few selected patches say little
    without their positions."""

    config_class = ResNetConfig
    donors = ("vit",)
    default_layers = 2

    def __init__(self, config: Any) -> None:
        super().__init__(config, convolutions(config, 9))
        side = config.image_size // config.patch_size
        self.positions = nn.Parameter(torch.randn(side, side, config.hidden_size))  # as large as a normalised patch


class ResNetEncoder(ImageEncoder):
    """Reads every patch together with its neighbours."""

    net = ResNet

    def assemble(self, embeddings: Tensor, where: Tensor | None = None) -> Tensor:
        return super().assemble(embeddings + self.backbone.positions.flatten(0, 1))

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        grid = hidden.unflatten(1, self.backbone.positions.shape[:2])  # [batch, rows, columns, hidden]
        for convolution in self.layer_stack():
            grid = self.step(read_grid, convolution, grid)
        return grid.flatten(1, 2)


def read_line(convolution: nn.Module, hidden: Tensor, real: Tensor) -> Tensor:
    """A residual convolution along [batch, positions, hidden]; `real` bool [batch, positions, 1] hides padding."""
    return hidden + nn.functional.gelu(convolution(neighbours(hidden * real, 1)))


def read_grid(convolution: nn.Module, grid: Tensor) -> Tensor:
    """A residual convolution over the eight neighbours of each patch, [batch, rows, columns, hidden]."""
    return grid + nn.functional.gelu(convolution(neighbours(neighbours(grid, 1), 2)))


def neighbours(hidden: Tensor, axis: int) -> Tensor:
    """Concatenate each position with its predecessor and successor along an axis, with zeros beyond the ends:
    [..., hidden] to [..., 3 · hidden]."""
    beyond = [0, 0] * (hidden.dim() - 1 - axis) + [1, 1]  # innermost axis first
    padded = nn.functional.pad(hidden, beyond)
    before, after = ((slice(None),) * axis + (part,) for part in (slice(None, -2), slice(2, None)))
    return torch.cat([padded[before], hidden, padded[after]], dim=-1)

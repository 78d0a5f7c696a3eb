"""Convolutional nets: on a text transformer's word embeddings, and on an image transformer's patch grid.

A convolution is written as one product of every position's window, so that the export has a single way of making
products int8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from rekd_edge.modeling.student import ImageEncoder, StudentNet, TextEncoder, real_positions

__all__ = ["CNN", "CNNEncoder", "ResNet", "ResNetEncoder", "neighbours"]


class CNNConfig(PretrainedConfig):
    """`num_hidden_layers` counts convolutions of width 3, each with a residual."""

    model_type = "rekd-cnn"


class ResNetConfig(PretrainedConfig):
    """`num_hidden_layers` counts residual blocks, which see 3 x 3 patches."""

    model_type = "rekd-resnet"


AutoConfig.register(CNNConfig.model_type, CNNConfig)
AutoConfig.register(ResNetConfig.model_type, ResNetConfig)


class CNN(StudentNet):
    """Residual blocks over three tokens: x + GELU(W [x before, x, x after])."""

    config_class = CNNConfig
    donors = ("bert", "roberta")
    default_layers = 2

    def __init__(self, config: Any) -> None:
        width = config.hidden_size
        super().__init__(config, [nn.Linear(3 * width, width) for _ in range(config.num_hidden_layers)])


class CNNEncoder(TextEncoder):
    """Beyond a text's end every convolution sees zeros, as beyond its beginning."""

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        real = real_positions(hidden, bias)[..., None]  # [batch, positions, 1]
        for convolution in self.layer_stack():
            hidden = hidden + nn.functional.gelu(convolution(neighbours(hidden * real, 1)))
        return hidden


class Bottleneck(nn.Module):
    """A residual block of half the width (arXiv 1512.03385, figure 5), with GELU and without normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, width // 2)
        self.convolution = nn.Linear(9 * (width // 2), width // 2)
        self.expand = nn.Linear(width // 2, width)

    def forward(self, grid: Tensor) -> Tensor:
        """[batch, rows, columns, hidden] to the same."""
        narrow = nn.functional.gelu(self.reduce(grid))
        window = neighbours(neighbours(narrow, 1), 2)  # [batch, rows, columns, 9 · hidden / 2]
        return grid + self.expand(nn.functional.gelu(self.convolution(window)))


class ResNet(StudentNet):
    """Bottleneck blocks on the patch grid; where a patch lies shows in the zeros beyond the border alone."""

    config_class = ResNetConfig
    donors = ("vit",)
    default_layers = 2

    def __init__(self, config: Any) -> None:
        super().__init__(config, [Bottleneck(config.hidden_size) for _ in range(config.num_hidden_layers)])


class ResNetEncoder(ImageEncoder):
    """Sees every patch among those around it."""

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        side = self.config.image_size // self.config.patch_size
        grid = hidden.unflatten(1, (side, side))
        for block in self.layer_stack():
            grid = block(grid)
        return grid.flatten(1, 2)


def neighbours(hidden: Tensor, axis: int) -> Tensor:
    """[..., hidden] to [..., 3 · hidden]: what stands before each place along an axis, itself, and what comes after;
    zeros beyond the ends."""
    beyond = [0, 0] * (hidden.dim() - 1 - axis) + [1, 1]  # innermost axis first
    padded = nn.functional.pad(hidden, beyond)
    before, after = ((slice(None),) * axis + (part,) for part in (slice(None, -2), slice(2, None)))
    return torch.cat([padded[before], hidden, padded[after]], dim=-1)

"""The paper's augmentation on CIFAR for a whole batch, on the device that trains: crop, flip, resize, normalise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rekd_edge.data.features import CROP_PADDING
from rekd_edge.modeling.constants import constant
from rekd_edge.runtime.image import ImageSettings

__all__ = ["Crops", "augment", "draw_crops", "resize"]

MODES = {2: "bilinear", 3: "bicubic"}
"""PIL's filters by number, as torch names them."""


class Crops(NamedTuple):
    """What is cut from each image after it got a black border of `CROP_PADDING`; int64 and bool [batch]."""

    left: Tensor
    top: Tensor
    flip: Tensor

    def of(self, rows: Tensor | slice) -> Crops:
        """Those of some rows."""
        return Crops(self.left[rows], self.top[rows], self.flip[rows])


def draw_crops(rows: int, generator: torch.Generator) -> Crops:
    """Every place of the crop alike, and a horizontal flip half of the time."""
    device, places = generator.device, 2 * CROP_PADDING + 1
    left, top = torch.randint(places, (2, rows), generator=generator, device=device)
    return Crops(left, top, torch.rand(rows, generator=generator, device=device) < 0.5)


@torch.no_grad()
def augment(images: Tensor, crops: Crops, settings: ImageSettings) -> Tensor:
    """Pixel values float32 [batch, 3, H, W] of uint8 images [batch, 3, h, w]."""
    height, width = images.shape[2:]
    padded = functional.pad(images, (CROP_PADDING,) * 4)
    across = torch.arange(width, device=images.device)
    across = torch.where(crops.flip[:, None], width - 1 - across, across) + crops.left[:, None]  # [batch, w]
    down = torch.arange(height, device=images.device) + crops.top[:, None]  # [batch, h]
    image = torch.arange(len(images), device=images.device)[:, None, None]
    cropped = padded[image, :, down[:, :, None], across[:, None, :]].movedim(-1, 1)  # [batch, 3, h, w]
    mean, std = (constant(tuple(three), images.device).view(3, 1, 1) for three in (settings.mean, settings.std))
    return (resize(cropped, settings) * settings.rescale_factor - mean) / std


def resize(images: Tensor, settings: ImageSettings) -> Tensor:
    """Images [batch, 3, h, w] at the model's size, float32 in whole numbers 0 to 255 as PIL has them.

    As PIL does, rows are resized and rounded before columns. Bilinear values are PIL's own; of bicubic ones, one in a
    thousand is off by 1 or 2 of 255, because PIL rounds its weights too.
    """
    resized, mode = images.float(), MODES[settings.resample]
    for size in ((images.shape[2], settings.width), (settings.height, settings.width)):
        if resized.shape[2:] != size:
            resized = functional.interpolate(resized, size, mode=mode, antialias=True, align_corners=False)
            resized = (resized + 0.5).floor().clamp(0, 255)  # halves go up
    return resized

"""The paper's augmentation on CIFAR for a whole batch, on the device that trains: crop, flip, resize, normalise."""

from __future__ import annotations

from functools import lru_cache
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

    with torch.autocast(images.device.type, enabled=False):
        pixels = resize(cropped, settings)

    return pixels.mul_(settings.rescale_factor).sub_(mean).div_(std)


def resize(images: Tensor, settings: ImageSettings) -> Tensor:
    """Images [batch, 3, h, w] at the model's size, float32 in whole numbers 0 to 255 as PIL has them.

    As PIL does, rows are resized and rounded before columns. Bilinear values are PIL's own; of bicubic ones, one in a
    thousand is off by 1 or 2 of 255, because PIL rounds its weights too.
    """
    pixels, (height, width), mode = images.float(), images.shape[2:], MODES[settings.resample]
    if width != settings.width:
        pixels = _whole(pixels @ _weights(width, settings.width, mode, images.device))
    if height != settings.height:
        pixels = _whole(_weights(height, settings.height, mode, images.device).T @ pixels)
    return pixels


def _whole(values: Tensor) -> Tensor:
    """The nearest of 0 to 255; halves go up."""
    return values.add_(0.5).floor_().clamp_(0, 255)


@lru_cache
def _weights(length: int, wanted: int, mode: str, device: torch.device) -> Tensor:
    """What each old place adds to each new one, [length, wanted]: torch's own filter, as a product is faster."""
    places = torch.eye(length, device=device)[None, None]
    return functional.interpolate(places, (length, wanted), mode=mode, antialias=True, align_corners=False)[0, 0]

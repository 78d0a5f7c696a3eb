"""Images to pixel values: the one preprocessing that training, export and the device share. Needs numpy and Pillow."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rekd_edge.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageSource = str | Path | bytes | Image | NDArray[Any]

__all__ = ["ImageSettings", "image_pixels", "load_image", "normalise"]

MAX_SIDE = 65_535
"""As JPEG has it."""
MAX_PIXELS = 2**28 // 3
"""A quarter of a gigabyte at three bytes each, where Pillow by itself warns."""
FORMATS = {"AVIF", "BMP", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI",
           "TGA", "TIFF", "WEBP"}  # fmt: skip
"""The formats that hold pixels. Pillow reads others too, and has PostScript drawn by a program of the system."""


@dataclass(frozen=True)
class ImageSettings:
    """How an image becomes `pixel_values`: size and patch in pixels, a PIL resampling filter, and the normalisation.

    Raises:
        InputError: the sizes are not positive multiples of the patch, or mean and std are not three numbers.
    """

    height: int
    width: int
    patch_size: int
    resample: int
    rescale_factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.patch_size) < 1:
            raise InputError("Image height, width and patch_size must be positive; correct the image settings.")

        if self.height % self.patch_size or self.width % self.patch_size:
            raise InputError(
                f"An image of {self.height} x {self.width} pixels does not divide into patches of {self.patch_size}; "
                "choose an image size that is a multiple of the patch."
            )

        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise InputError("Image mean and std need three numbers each, std above 0; correct the image settings.")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches as (rows, columns)."""
        return self.height // self.patch_size, self.width // self.patch_size

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageSettings:
        """Read what `to_dict` wrote; other keys are ignored.

        Raises:
            InputError: a value is missing or of the wrong kind.
        """
        try:
            known = {field.name: values[field.name] for field in fields(cls)}
            known |= {name: tuple(float(value) for value in known[name]) for name in ("mean", "std")}
            known |= {name: int(known[name]) for name in ("height", "width", "patch_size", "resample")}
            return cls(**known | {"rescale_factor": float(known["rescale_factor"])})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The image settings are incomplete ({error!r}); export the run again.") from error

    def to_dict(self) -> dict[str, Any]:
        """The same values as JSON can hold them."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}


def load_image(source: ImageSource) -> Image:
    """Open an image as RGB: EXIF orientation applied, transparency on white, 16 bits scaled to 8, first frame.

    Args:
        source: a path, the bytes of an image file, a PIL image, or an array `[H, W]`, `[H, W, 1 | 3 | 4]` of
            uint8, uint16, bool or floats in [0, 1].

    Raises:
        InputError: the source is missing, broken, too large or no image, or Pillow is not installed.
    """
    pil = _pillow()
    if isinstance(source, np.ndarray):
        return _to_rgb(pil.fromarray(_array_to_uint8(source)))
    if isinstance(source, pil.Image):
        with _reading("The image"):
            return _decode(source)
    if isinstance(source, bytes | bytearray):
        with _reading("The image"), pil.open(io.BytesIO(source)) as image:
            return _decode(image)
    if not isinstance(source, str | Path):
        raise InputError(f"A {type(source).__name__} is not an image; give a path, bytes, a PIL image or an array.")

    name = repr(str(source))
    with _reading(name):
        if not stat.S_ISREG(os.stat(source).st_mode):
            raise InputError(f"{name} cannot be read as an image (it is no file); give an ordinary JPEG or PNG.")
        with pil.open(source) as image:
            return _decode(image)


def image_pixels(image: Image, settings: ImageSettings) -> NDArray[np.uint8]:
    """Resize to the model's size: uint8 `[H, W, 3]`."""
    size = (settings.width, settings.height)
    return np.array(image if image.size == size else image.resize(size, resample=settings.resample))


def normalise(pixels: NDArray[np.uint8], settings: ImageSettings) -> NDArray[np.float32]:
    """Rescale and normalise: uint8 `[..., H, W, 3]` to float32 `[..., 3, H, W]`."""
    # Double-precision rescaling, then float32, as Hugging Face's image processors do.
    scaled = (pixels * np.float64(settings.rescale_factor)).astype(np.float32)
    normal = (scaled - np.asarray(settings.mean, np.float32)) / np.asarray(settings.std, np.float32)
    return np.ascontiguousarray(np.moveaxis(normal, -1, -3))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError('Images need Pillow; install it with: pip install "rekd-edge[image]"') from error
    return Image


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever Pillow makes of a broken or oversized file into one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", _pillow().DecompressionBombWarning)
            yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name} does not exist; give the path of an image.") from error
    except _pillow().UnidentifiedImageError as error:  # whose own words name an object in memory
        raise InputError(
            f"{name} cannot be read as an image (no known format); give an ordinary JPEG or PNG."
        ) from error
    except Exception as error:  # format plugins raise whatever a broken header leads them to
        raise InputError(f"{name} cannot be read as an image ({error}); give an ordinary JPEG or PNG.") from error


def _decode(image: Image) -> Image:
    from PIL import ImageOps

    if not image.width or not image.height:
        raise InputError("An image without pixels cannot be classified; give one of at least 1 x 1.")

    _check_size(image.width, image.height)
    if image.format is not None and image.format not in FORMATS:
        raise InputError(f"An image in the format {image.format} is not read; give an ordinary JPEG or PNG.")

    return _to_rgb(ImageOps.exif_transpose(image))


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(
            f"An image of {width} x {height} pixels is too large; give one of at most {MAX_SIDE} a side and "
            f"{MAX_PIXELS:,} in all."
        )


def _to_rgb(image: Image) -> Image:
    """Any PIL mode to RGB."""
    pil = _pillow()
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion would clip 16 bits at 255.
        values = np.asarray(image).clip(0, 65535).astype(np.uint32)
        return pil.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")

    if image.mode == "F":
        return pil.fromarray(_array_to_uint8(np.asarray(image))).convert("RGB")

    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        straight = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        return pil.alpha_composite(pil.new("RGBA", image.size, "white"), straight).convert("RGB")

    return image.convert("RGB")


def _array_to_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise InputError(f"An array of shape {array.shape} is not an image; give [H, W] or [H, W, 3].")

    _check_size(array.shape[1], array.shape[0])
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    # The negated comparison also catches NaN.
    if not np.issubdtype(array.dtype, np.floating) or not bool(np.all((array >= 0) & (array <= 1))):
        raise InputError("An image array needs uint8, uint16, bool or floats in [0, 1]; convert it first.")

    return np.rint(array * 255).astype(np.uint8)

"""Images: any mode, depth and orientation becomes RGB, and pixel values equal Hugging Face's."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rekd_edge.errors import InputError
from rekd_edge.runtime.image import ImageSettings, image_pixels, load_image, normalise

Image = pytest.importorskip("PIL.Image")

SETTINGS = ImageSettings(224, 224, 16, 3, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixel(source: Any, position: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = load_image(source)
    assert image.mode == "RGB"
    return image.getpixel(position)


def test_grey_palette_and_bilevel_become_rgb() -> None:
    palette = Image.new("RGB", (2, 2), (200, 30, 10)).quantize(4)
    assert pixel(encoded(Image.new("L", (1, 1), 77))) == (77, 77, 77)
    assert pixel(encoded(palette)) == (200, 30, 10)
    assert pixel(encoded(Image.new("1", (2, 2), 1))) == (255, 255, 255)


def test_transparency_is_composited_on_white() -> None:
    assert pixel(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 255)))) == (255, 0, 0)
    assert pixel(encoded(Image.new("LA", (2, 2), (0, 0)))) == (255, 255, 255)
    palette = Image.new("RGB", (2, 2), (1, 2, 3)).quantize(2)
    assert pixel(encoded(palette, transparency=0)) == (255, 255, 255)
    assert pixel(np.zeros((2, 2, 4), np.uint8)) == (255, 255, 255)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (128 * 257, 128), (20_000, 78)])
def test_sixteen_bits_are_scaled_to_eight(value: int, expected: int) -> None:
    values = np.full((3, 2), value, np.uint16)
    assert pixel(encoded(Image.fromarray(values))) == (expected,) * 3
    assert pixel(values) == (expected,) * 3


def test_exif_orientation_is_applied() -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees clockwise: white comes to the top
    image = load_image(encoded(Image.fromarray(pixels), exif=exif))
    assert image.size == (8, 16)
    assert image.getpixel((4, 2)) == (255, 255, 255)
    assert image.getpixel((4, 14)) == (0, 0, 0)


def test_every_kind_of_source_gives_the_same_image(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    path.write_bytes(encoded(Image.fromarray(array)))
    floats = array.astype(np.float32) / 255
    for source in (str(path), path, path.read_bytes(), Image.fromarray(array), array, floats):
        np.testing.assert_array_equal(np.asarray(load_image(source)), array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"])
def test_every_mode_opens(mode: str) -> None:
    assert load_image(Image.new(mode, (3, 2))).size == (3, 2)
    assert load_image(Image.new("F", (3, 2), 0.5)).getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"not an image",
        encoded(Image.new("RGB", (64, 64), "red"))[:60],
        encoded(Image.effect_noise((64, 64), 50), "JPEG")[:300],
        "no/such/file.png",
        "\0",
        ".",
        "x" * 5000,
        3,
        None,
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 2, 2, 3), np.uint8),
        np.full((2, 2), np.nan),
        np.full((2, 2), 7.0),
        np.zeros((2, 2), np.int64),
    ],
)
def test_a_broken_image_is_one_clear_error(source: Any) -> None:
    with pytest.raises(InputError):
        load_image(source)


def test_too_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for side in (11, 20):  # Pillow warns above the limit and refuses above twice the limit
        with pytest.raises(InputError, match="cannot be read"):
            load_image(encoded(Image.new("L", (side, side))))


def test_a_missing_pillow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(InputError, match=r"rekd-edge\[image\]"):
        load_image(b"")


@pytest.mark.parametrize("size", [(1, 1), (37, 211), (224, 224), (640, 480)])
def test_pixel_values_equal_hugging_face(size: tuple[int, int]) -> None:
    transformers = pytest.importorskip("transformers")
    processor_class = getattr(transformers, "ViTImageProcessorPil", None) or transformers.ViTImageProcessor
    processor = processor_class(
        size={"height": 224, "width": 224}, resample=3, image_mean=list(SETTINGS.mean), image_std=list(SETTINGS.std)
    )
    array = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(array)
    expected = processor(image, return_tensors="np", input_data_format="channels_last")["pixel_values"][0]
    ours = normalise(image_pixels(load_image(image), SETTINGS), SETTINGS)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_normalise_keeps_leading_axes() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
    out = normalise(pixels, SETTINGS)
    assert out.shape == (2, 3, 3, 4, 5)
    expected = (pixels[1, 2, 3, 4, 1] / 255 - 0.456) / 0.224
    assert out[1, 2, 1, 3, 4] == pytest.approx(expected, abs=1e-6)


def test_settings_survive_json() -> None:
    import json

    assert ImageSettings.from_dict(json.loads(json.dumps(SETTINGS.to_dict()))) == SETTINGS
    assert SETTINGS.grid == (14, 14)


@pytest.mark.parametrize("change", [{"height": 223}, {"patch_size": 0}, {"mean": [1.0]}, {"std": [0, 1, 1]}])
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ImageSettings.from_dict(SETTINGS.to_dict() | change)
    with pytest.raises(InputError, match="incomplete"):
        ImageSettings.from_dict({"height": 224})

"""Show a prediction to a person: the text with its rationale highlighted, or the image with its patches."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.text import Text

from rekd_edge.errors import FailureError, InputError
from rekd_edge.files import replacing, write_text
from rekd_edge.runtime.image import load_image
from rekd_edge.runtime.prediction import ImagePrediction, TextPrediction
from rekd_edge.terminal import printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from rekd_edge.runtime.image import ImageSource

__all__ = ["rationale_png", "rationale_svg", "render_image", "render_text", "show"]

HIGHLIGHT = Style(bold=True, color="black", bgcolor="yellow")
TERMINAL_PIXELS = 48  # width of a drawn image in character cells, at most (unless it has more patches)
OTHERS_SHOWN = 5  # labels that were not chosen
PNG_PIXELS = 224  # a smaller image is enlarged to this, so that its patches can be seen
DIMMED = 0.3  # brightness of what was not selected
TINT, TINTED = (255, 140, 0), 0.35  # what was selected, so that dark patches show too

SVG_COLUMNS = 90
SVG_FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Rich's own format without the fonts that it loads from elsewhere."""


def render_text(text: str, prediction: TextPrediction) -> RenderableType:
    """The text with its rationale highlighted, above it label, probability and share of tokens selected.

    Nothing in the text or the labels is read as markup, and control characters are left out.
    """
    body = Text()
    position = 0

    for span in prediction.rationale:
        body.append(printable(text[position : span["start"]]))
        body.append(printable(text[span["start"] : span["end"]]), HIGHLIGHT)
        position = span["end"]

    body.append(printable(text[position:]))
    headline = _headline(prediction, f"{sum(prediction.mask)} of {len(prediction.mask)} tokens")

    if prediction.truncated:
        headline.append("  (the end of the text was not read)", "yellow")

    return Group(headline, body)


def render_image(image: ImageSource, prediction: ImagePrediction) -> RenderableType:
    """The image as half-block cells, selected patches tinted and the rest grey and dimmed, below the label.

    Raises:
        InputError: the image cannot be read.
    """
    mask = np.array(prediction.mask, dtype=bool)
    rows, columns = mask.shape
    # Each patch is `cell` terminal pixels wide and high; an even height fills whole characters.
    cell = max(1, min(prediction.patch_size, TERMINAL_PIXELS // columns))

    pixels = _highlighted(load_image(image).resize((columns * cell, rows * cell)), mask)
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])

    picture = Text(no_wrap=True)
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        for top, bottom in zip(upper, lower, strict=True):
            picture.append("▀", Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom)))
        picture.append("\n")

    return Group(_headline(prediction, f"{int(mask.sum())} of {mask.size} patches"), picture)


def show(console: Console, source: Any, prediction: TextPrediction | ImagePrediction) -> None:
    """Print a prediction with its rationale: drawn on a terminal with colours, in plain characters elsewhere.

    Raises:
        InputError: the image cannot be read.
    """
    if isinstance(prediction, TextPrediction):
        console.print(render_text(source, prediction))
        if console.color_system is None:
            words = ", ".join(printable(span["text"]) for span in prediction.rationale)
            console.print(f"rationale: {words}", markup=False, soft_wrap=True)

        for line in _other_classes(prediction):
            console.print(line, soft_wrap=True)
    elif console.color_system is None:
        console.print(_headline(prediction, f"{sum(map(sum, prediction.mask))} patches, # below"))
        console.print("\n".join("".join("#" if cell else "." for cell in row) for row in prediction.mask))
    else:
        console.print(render_image(source, prediction))


def rationale_png(image: ImageSource, prediction: ImagePrediction, path: str | os.PathLike[str]) -> None:
    """Write the image as a PNG, selected patches tinted and the rest grey and dimmed; whole or not at all.

    Raises:
        InputError: the image cannot be read, or the folder of `path` does not exist.
        FailureError: the file cannot be written.
    """
    destination = Path(path)
    if not destination.parent.is_dir() or destination.is_dir():
        raise InputError(f"{destination} cannot be a file; give the path of a PNG in a folder that exists.")

    mask = np.array(prediction.mask, dtype=bool)
    picture = _enlarged(load_image(image), mask.shape, prediction.patch_size)
    pixels = _highlighted(picture, mask)

    try:
        with replacing(destination) as unfinished:
            _image_from(pixels).save(unfinished, format="PNG")
    except OSError as error:
        raise FailureError(f"{destination} could not be written ({error.strerror or error}).") from error


def rationale_svg(text: str, prediction: TextPrediction, path: str | os.PathLike[str]) -> None:
    """Write the text with its rationale highlighted as an SVG; whole or not at all.

    Raises:
        InputError: the folder of `path` does not exist.
        FailureError: the file cannot be written.
    """
    destination = Path(path)
    if not destination.parent.is_dir() or destination.is_dir():
        raise InputError(f"{destination} cannot be a file; give the path of an SVG in a folder that exists.")

    recorder = Console(
        record=True, width=SVG_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    recorder.print(render_text(text, prediction))
    picture = recorder.export_svg(title="rekd-edge predict", code_format=SVG_FORMAT)

    try:
        write_text(destination, picture)
    except OSError as error:
        raise FailureError(f"{destination} could not be written ({error.strerror or error}).") from error


def _headline(prediction: TextPrediction | ImagePrediction, selected: str) -> Text:
    return Text.assemble(
        (printable(prediction.label), "bold"),
        f"  {prediction.scores[prediction.label]:.1%}",
        (f"  rationale {prediction.rationale_ratio:.0%}, {selected}", "dim"),
    )


def _other_classes(prediction: TextPrediction) -> list[Text]:
    """What speaks for the labels that were not chosen, the likeliest first."""
    lines = []
    for label in sorted(prediction.scores, key=lambda label: -prediction.scores[label]):
        if label == prediction.label or not prediction.class_rationales:
            continue
        words = ", ".join(printable(span["text"]) for span in prediction.class_rationales[label]["rationale"])
        share = f"{prediction.scores[label]:.1%}"
        lines.append(Text.assemble(("for ", "dim"), printable(label), (f"  {share}  ", "dim"), words))

    return lines[:OTHERS_SHOWN]


def _enlarged(image: Image, grid: tuple[int, ...], patch_size: int) -> Image:
    """At least the size the model saw, and at least `PNG_PIXELS` on each side."""
    rows, columns = grid
    width, height = max(image.width, columns * patch_size), max(image.height, rows * patch_size)
    factor = -(-PNG_PIXELS // min(width, height, PNG_PIXELS))
    return image.resize((width * factor, height * factor), resample=0)  # nearest: pixels stay what they are


def _highlighted(image: Image, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Tint the patches in `mask` `[rows, columns]`, grey and darken the others: uint8 `[H, W, 3]`."""
    pixels = np.array(image, dtype=np.float64)
    height, width = pixels.shape[:2]
    rows, columns = mask.shape
    selected = mask[np.arange(height) * rows // height][:, np.arange(width) * columns // width]  # [H, W]
    dimmed = pixels.mean(axis=-1, keepdims=True) * DIMMED
    tinted = pixels * (1 - TINTED) + np.array(TINT) * TINTED

    return np.where(selected[..., None], tinted, dimmed).astype(np.uint8)


def _image_from(pixels: NDArray[np.uint8]) -> Image:
    from PIL import Image

    return Image.fromarray(pixels)

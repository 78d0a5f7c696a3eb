"""What a person sees: the rationale stands out, and nothing in the user's text can break the terminal."""

import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from rekd_edge.errors import FailureError, InputError
from rekd_edge.runtime.display import rationale_png, rationale_svg, render_image, render_text, show
from rekd_edge.runtime.prediction import ImagePrediction, TextPrediction


def prediction(text: str, spans: list[tuple[int, int]], label: str = "positive") -> TextPrediction:
    return TextPrediction(
        label=label,
        label_id=1,
        scores={label: 0.973},
        rationale=[{"start": start, "end": end, "text": text[start:end]} for start, end in spans],
        mask=[1, 0, 0, 0],
        tokens=["a", "b", "c", "d"],
        rationale_ratio=0.25,
        truncated=False,
    )


def shown(renderable: RenderableType, *, color: bool = False) -> str:
    file = io.StringIO()
    system = "truecolor" if color else None
    Console(file=file, force_terminal=color, color_system=system, width=120, legacy_windows=False).print(renderable)
    return file.getvalue()


def test_label_probability_and_rationale_are_shown() -> None:
    text = "an absolute delight"
    rendered = render_text(text, prediction(text, [(12, 19)]))
    plain = shown(rendered)
    assert "positive  97.3%  rationale 25%, 1 of 4 tokens" in plain
    assert text in plain
    before, _, after = shown(rendered, color=True).splitlines()[1].partition("delight")
    assert before.endswith("43m")  # yellow background
    assert after == "\x1b[0m"


def test_markup_is_shown_as_it_was_written() -> None:
    text = "[bold]x[/bold] [/] [link=file:///]y :smile: \\[red]"
    assert text in shown(render_text(text, prediction(text, [(0, 6)], label="[red]label[/red]")))


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = "a\x1b[2J\x1b]0;title\x07b\rc\u202ed\x00\x9b1me\r\nf"
    out = shown(render_text(text, prediction(text, [(0, 3)], label="\x1b[31mlabel")))
    assert not set(out) & set("\x1b\x07\r\u202e\x00\x9b")
    assert "a[2J]0;titlebcd1me\nf" in out


@given(st.text(st.characters(), max_size=80), st.data())
def test_any_text_can_be_shown(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6, unique=True)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    shown(render_text(text, prediction(text, spans)), color=True).encode("utf-8")


def test_a_long_text_is_shown_whole() -> None:
    text = "word " * 20_000
    assert shown(render_text(text, prediction(text, [(5, 9)]))).count("word") == 20_000


IMAGE = ImagePrediction(
    label="bright",
    label_id=1,
    scores={"bright": 0.9},
    mask=[[0, 1], [0, 0], [0, 0]],
    patch_size=3,
    rationale_ratio=1 / 6,
)


def test_an_image_is_drawn_with_its_patches() -> None:
    pytest.importorskip("PIL")
    red = np.zeros((9, 6, 3), np.uint8)
    red[..., 0] = 240
    lines = shown(render_image(red, IMAGE), color=True).splitlines()
    assert "bright" in lines[0]
    assert sum("▀" in line for line in lines) == 5  # 9 pixels high, two a line
    assert "38;2;24;24;24" in lines[1]  # grey: a third of 240, dimmed to 30 %
    assert "38;2;245;49;0" in lines[1]  # 65 % of the red, 35 % of the tint
    assert "38;2;245;49;0" not in lines[4]


def test_a_png_dims_what_was_not_selected(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    path = tmp_path / "rationale.png"
    rationale_png(np.full((300, 200, 3), 100, np.uint8), IMAGE, path)
    written = np.asarray(image_module.open(path))
    height, width = written.shape[:2]
    assert height * 2 == width * 3
    selected = (written == (154, 114, 65)).all(axis=-1)  # 65 % of 100, 35 % of the tint
    assert selected[: height // 3, width // 2 :].all()
    assert selected.sum() == height * width // 6
    assert list(tmp_path.iterdir()) == [path]


def test_a_png_of_a_tiny_image_is_large_enough_to_see(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    rationale_png(np.zeros((1, 1, 3), np.uint8), IMAGE, tmp_path / "tiny.png")
    assert min(image_module.open(tmp_path / "tiny.png").size) >= 224


def test_a_png_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_module = pytest.importorskip("PIL.Image")
    grey = np.zeros((9, 6, 3), np.uint8)
    with pytest.raises(InputError, match="folder that exists"):
        rationale_png(grey, IMAGE, tmp_path / "no" / "x.png")

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_module.Image, "save", full_disk)
    with pytest.raises(FailureError, match="No space left"):
        rationale_png(grey, IMAGE, tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_without_colours_the_rationale_is_spelled_out() -> None:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    show(console, "a dull plot", prediction("a dull plot", [(2, 6)]))
    show(console, np.zeros((9, 6, 3), np.uint8), IMAGE)
    written = console.file.getvalue()
    assert "rationale: dull" in written
    assert written.endswith(".#\n..\n..\n")


def test_an_svg_holds_the_text_and_loads_nothing(tmp_path: Path) -> None:
    text = "a <fine> film & more"
    rationale_svg(text, prediction(text, [(2, 8)]), tmp_path / "text.svg")

    words = "".join(ElementTree.parse(tmp_path / "text.svg").getroot().itertext()).replace("\xa0", " ")
    assert "<fine>" in words
    assert "film & more" in words
    assert "url(http" not in (tmp_path / "text.svg").read_text()


def test_an_svg_without_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be a file"):
        rationale_svg("a", prediction("a", []), tmp_path / "gone" / "text.svg")

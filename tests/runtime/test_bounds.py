"""Sizes, counts and memory have bounds, and what goes beyond them is one sentence."""

from __future__ import annotations

import itertools
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekd_edge.errors import FailureError, InputError
from rekd_edge.runtime.batching import BATCH_POSITIONS, PART_CHARACTERS, PART_TEXTS, batches_of_like_length, parts
from rekd_edge.runtime.benchmark import LARGEST, BenchSettings
from rekd_edge.runtime.image import MAX_PIXELS, load_image
from rekd_edge.runtime.rationalizer import Rationalizer

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def texts(pristine_text_bundle: Path) -> Rationalizer:
    return Rationalizer.load(pristine_text_bundle, threads=1)


@pytest.fixture(scope="module")
def images(pristine_image_bundle: Path) -> Rationalizer:
    return Rationalizer.load(pristine_image_bundle, threads=1)


# Images


def grey_png(width: int, height: int) -> bytes:
    """A black PNG, whatever its size, without ever holding its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 + width)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_an_image_of_eighty_million_by_one_is_refused_by_its_header(images: Rationalizer) -> None:
    """78 kB on disk that stopped a whole bulk job with MemoryError."""
    bomb = grey_png(80_000_000, 1)
    assert len(bomb) < 100_000
    with pytest.raises(InputError, match="80000000 x 1 pixels is too large"):
        images(bomb)


@pytest.mark.parametrize(("width", "height"), [(65_536, 1), (1, 65_536), (10_000, 9_000)])
def test_sides_and_pixels_of_images_have_bounds(width: int, height: int) -> None:
    assert max(width, height) > 65_535 or width * height > MAX_PIXELS
    for source in (grey_png(width, height), np.broadcast_to(np.uint8(0), (height, width))):
        with pytest.raises(InputError, match=r"too large|exceeds limit"):  # the second are Pillow's words
            load_image(source)


def test_a_long_thin_image_within_the_bounds_is_read(images: Rationalizer) -> None:
    assert images(grey_png(65_535, 1)).mask == [[1, 0, 0], [0, 0, 0]]  # no patch is brighter than another


def test_formats_that_other_programs_draw_are_not_read() -> None:
    """Pillow has PostScript drawn by Ghostscript, if that is installed."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"
    with pytest.raises(InputError, match="format EPS is not read"):
        load_image(postscript)


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for a writer, for ever
    with pytest.raises(InputError, match="it is no file"):
        load_image(tmp_path / "pipe.png")


def test_what_pillow_raises_while_it_resizes_is_one_sentence(
    images: Rationalizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", no_memory)
    with pytest.raises(FailureError, match="not enough memory"):
        images(np.zeros((3, 3), np.uint8))


# Counts


@pytest.mark.parametrize("threads", [0, -1, 1025, 100_000, 2**70, 1.5, True, "2"])
def test_threads_have_bounds(pristine_text_bundle: Path, threads: Any) -> None:
    with pytest.raises(InputError, match="whole number from 1 to 1024"):
        Rationalizer.load(pristine_text_bundle, threads=threads)


@pytest.mark.parametrize("batch_size", [0, -3, 1.5, "8", None, True])
def test_a_batch_size_is_a_whole_number(texts: Rationalizer, images: Rationalizer, batch_size: Any) -> None:
    for ask in (texts, texts.predict_rows, images):
        with pytest.raises(InputError, match="batch_size"):
            ask([], batch_size=batch_size)


def test_a_huge_batch_size_is_a_bound_and_no_allocation(texts: Rationalizer, images: Rationalizer) -> None:
    assert texts(["good", "bad"], batch_size=2**70) == texts(["good", "bad"])
    assert len(images([np.zeros((4, 4), np.uint8)] * 3, batch_size=2**70)) == 3


@pytest.mark.parametrize("name", LARGEST)
def test_settings_of_bench_have_bounds(name: str) -> None:
    BenchSettings(**{name: LARGEST[name]})
    for value in (LARGEST[name] + 1, -1):
        with pytest.raises(InputError, match=rf"{name} is {value}; give a number from"):
            BenchSettings(**{name: value})


# Memory


@given(st.lists(st.integers(0, PART_CHARACTERS), max_size=40))
def test_parts_hold_every_text_once_and_little_at_a_time(lengths: list[int]) -> None:
    class Text(str):
        """A text that says how long it is, without being so."""

        __slots__ = ("length",)

        def __len__(self) -> int:
            return self.length

    given_texts = []
    for length in lengths:
        given_texts.append(Text())
        given_texts[-1].length = length
    slices = list(parts(given_texts))
    assert [index for part in slices for index in range(part.start, part.stop)] == list(range(len(lengths)))
    for part in slices:
        assert part.stop - part.start == 1 or sum(lengths[part]) <= PART_CHARACTERS


def test_parts_and_batches_have_bounds() -> None:
    assert [part.stop - part.start for part in parts(["a"] * (2 * PART_TEXTS + 3))] == [PART_TEXTS, PART_TEXTS, 3]
    assert max(map(len, batches_of_like_length([512] * 1000, 10**6))) == BATCH_POSITIONS // 512


def test_answers_of_many_texts_are_those_of_each(texts: Rationalizer) -> None:
    """More than a part holds, so that parts are joined."""
    words = ["good", "bad", "the film", ""]
    asked = [words[i % 4] for i in range(2 * PART_TEXTS + 5)]
    alone = {word: texts(word) for word in words}
    assert texts(asked) == [alone[word] for word in asked]
    rows = texts.predict_rows(asked)
    assert rows.logits.shape == (len(asked), 2)
    for place, word in itertools.islice(enumerate(asked), 0, None, 97):
        np.testing.assert_array_equal(rows.logits[place], texts.predict_rows([word]).logits[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's count of peak memory")
def test_memory_grows_with_the_answers_and_not_with_the_texts(pristine_text_bundle: Path) -> None:
    """Tokenised at once, 4,000 texts would take 30 MB more than 1,500."""
    code = f"""
        import sys
        from rekd_edge import Rationalizer
        from rekd_edge.runtime.memory import peak_memory
        rationalizer = Rationalizer.load({str(pristine_text_bundle)!r}, threads=1)
        texts = ["good film " * 40] * int(sys.argv[1])
        rationalizer.predict_rows(texts[:32])
        before = peak_memory()
        rationalizer.predict_rows(texts)
        print(peak_memory() - before)
    """
    grown = []
    for count in (1_500, 4_000):
        command = [sys.executable, "-c", textwrap.dedent(code), str(count)]
        grown.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    answers = 2_500 * 1000  # bytes: arrays of two logits, 14 bits and 14 margins, each with its head
    assert grown[1] - grown[0] < 2 * answers

"""Write src/unicode.js: what the tokenizers library does to every code point, asked of the library itself.

    python js/scripts/unicode.py

JavaScript's own character classes follow the Unicode version of the engine, the Rust library's that of its crates.
They differ on some hundred code points, and each engine and browser differs from the next.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import normalizers, pre_tokenizers

CODE_POINTS = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
OUTPUT = Path(__file__).parent.parent / "src" / "unicode.js"
OFF = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
COMMENTS = {
    "REMOVED": "Control and other characters that cleaning removes.",
    "WHITESPACE": "What parts words.",
    "PUNCTUATION": "What stands as a word of its own.",
    "MARKS": "Combining marks, which go with the accents.",
    "CHINESE": "Ideographs, each a word of its own.",
    "UNDECOMPOSED": "Characters that newer versions of Unicode take apart and the library does not.",
}


def main() -> None:
    """Ask, and write the file."""
    clean, chinese, strip = (
        normalizers.BertNormalizer(**{**OFF, name: True})
        for name in ("clean_text", "handle_chinese_chars", "strip_accents")
    )
    words = pre_tokenizers.BertPreTokenizer()

    def parts(character: str) -> int:
        return len(words.pre_tokenize_str(f"a{character}b"))

    marks = set(those(lambda character: strip.normalize_str(character) == ""))

    def undecomposed(character: str) -> bool:
        whole = "".join(each for each in unicodedata.normalize("NFD", character) if ord(each) not in marks)
        return ord(character) not in marks and strip.normalize_str(character) == character != whole

    tables = {
        "REMOVED": those(lambda character: clean.normalize_str(character) == ""),
        "WHITESPACE": those(lambda character: parts(character) == 2),
        "PUNCTUATION": those(lambda character: parts(character) == 3),
        "MARKS": sorted(marks),
        "CHINESE": those(lambda character: chinese.normalize_str(character) != character),
        "UNDECOMPOSED": sorted({*those(undecomposed), *NEWER_COMPOSITIONS}),
    }
    lines = [
        f"// Written by scripts/unicode.py from tokenizers {tokenizers.__version__}: ranges of code points in base 36."
    ]
    for name, codes in tables.items():
        lines += ["", f"/** {COMMENTS[name]} */", f'export const {name} = "{" ".join(ranges(codes))}";']
    OUTPUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


NEWER_COMPOSITIONS = [
    0x105C9, 0x105E4, 0x11383, 0x11385, 0x1138E, 0x11391, 0x113C5, 0x113C7, 0x113C8, 0x11938,
    *range(0x16121, 0x16129), 0x16D68, 0x16D69, 0x16D6A,
]  # fmt: skip
"""Of Unicode 13 to 16, as Node 20 decomposes them: Python's own tables may be older than an engine's."""


def those(holds: Callable[[str], bool]) -> list[int]:
    """The code points whose character has a property."""
    return [code for code in CODE_POINTS if holds(chr(code))]


def ranges(codes: list[int]) -> Iterator[str]:
    """Runs of neighbours: the distance from the last run's end, and the length where it is above 1, in base 36."""
    end, i = 0, 0
    while i < len(codes):
        last = i
        while last + 1 < len(codes) and codes[last + 1] == codes[last] + 1:
            last += 1
        length = last - i + 1
        yield base36(codes[i] - end) + (f"+{base36(length)}" if length > 1 else "")
        end, i = codes[last] + 1, last + 1


def base36(number: int) -> str:
    """As JavaScript's parseInt(…, 36) reads it."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = digits[number % 36]
    while number := number // 36:
        text = digits[number % 36] + text
    return text


if __name__ == "__main__":
    main()

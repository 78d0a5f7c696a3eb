"""The inputs of the vectors: what people write, and what breaks tokenizers and image readers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["IMAGES", "TEXTS"]

TEXTS = {
    "review": "A superb and gripping film with a dull, clumsy end.",
    "long review": (
        "I went in expecting very little, and for the first half hour that is what I got: a tedious parade of people "
        "in rooms. Then the second act begins and something superb happens. The camera stops moving, the two leads "
        "stop talking, and the whole story turns on a glance. It's brilliant, it's moving, and it isn't dishonest for "
        "a second. The ending, sadly, is clumsy; but nobody who saw this with me left before the lights came up."
    ),
    "review with markup": 'Loved it!!! <br /><br />10/10 -- "best of the year", they said... don\'t believe them?',
    "empty": "",
    "spaces": " \t\n\r ",
    "one word": "superb",
    "one character": "a",
    "unknown word": "a" * 101,
    "longest word": "superb" * 16,
    "long": "the film was dull and then it was superb . " * 30,
    "long without spaces": "abcdefghij" * 400,
    "emoji with joiners": "moving 👨‍👩‍👧‍👦 and 👩🏽‍🚒 and 🏳️‍🌈 superb ❤️",
    "emoji in a word": "su😀perb film😀",
    "flags and keycaps": "🇩🇪🇫🇷 1️⃣ #️⃣ dull",
    "combining marks": "cafe\u0301 nai\u0308ve re\u0301sume\u0301 a\u0300\u0301\u0302\u0303b",
    "composed": "café naïve résumé Ångström Ünïcödé",
    "leading mark": "\u0301superb",
    "hangul": "한국어 영화 \u1112\u1161\u11ab",
    "vietnamese": "Tiếng Việt rất hay",
    "right to left": "סרט טוב מאוד, شريط جيد جدا superb",
    "points": "שָׁלוֹם עֲלֵיכֶם ـَـ مُمْتَاز",
    "bidi controls": "\u202edull\u202c \u2067superb\u2069 \u200fa",
    "chinese": "这部电影很好superb看",
    "japanese": "とても良い映画ですスーパー superb",
    "rare ideographs": "𠀀𪜀superb𫝀 㐀㐀",
    "control characters": "su\x00pe\x07rb \x1b[31mdull\x1b[0m \x7f\x85end",
    "invisible": "su\u00adperb\u200b du\ufeffll \u2060a\u180eb",
    "replacement": "su\ufffdperb \ufffd dull",
    "spaces of all kinds": "a\u00a0dull\u2003film\u3000with\u2028two\u2029lines\u1680x\u205fy",
    "specials": "[SEP] a [CLS] dull[SEP]film [PAD] [MASK] [UNK] [sep] ##s",
    "brackets": "[[SEP]] [ SEP ] [SEP",
    "case": "SUPERB Superb ΣΑΣ ὈΔΥΣΣΕΎΣ İstanbul ǅ Straße ŒUVRE ﬁlm",
    "punctuation": "a.b,c;d:e!f?g-h_i~j`k^l|m\\n/o¿p¡q«r»s…t—u“v”w‘x’y、z。",
    "symbols": "5 € + 3 £ = ½ ≠ ∞ ™ ® ° § ¶ † ‡ • ← → $5 ^_^",
    "numbers": "1,234.56 1e-5 ٣٤٥ Ⅷ ²³ 3rd 20th",
    "surrogate": "dull \ud83d film \udc00superb",
    "astral": "𝒔𝒖𝒑𝒆𝒓𝒃 𝔡𝔲𝔩𝔩 🅰️ 𐐀𐐨 film",
    "indic": "बहुत अच्छी फिल्म மிக நல்ல படம்",
    "thai": "หนังดีมาก superb",
    "noncharacters": "a\ufffe b\uffff c\U000e0001 d\ue000 dull",
    "tags": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f superb",
}


def _gradient(height: int, width: int) -> NDArray[np.uint8]:
    """A colour gradient with a dark disc, [height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    red, green = x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1)
    disc = (2 * x - width) ** 2 + (2 * y - height) ** 2 < min(height, width) ** 2 // 4

    return np.where(disc[..., None], 20, np.stack([red, green, 255 - red], axis=-1)).astype(np.uint8)


def _digit(index: int, scale: int) -> NDArray[np.uint8]:
    """A scanned digit, enlarged, [8 · scale, 8 · scale]."""
    from sklearn.datasets import load_digits

    values = np.rint(load_digits().images[index] * 255 / 16).astype(np.uint8)
    return values.repeat(scale, axis=0).repeat(scale, axis=1)


def _with_alpha() -> NDArray[np.uint8]:
    """A gradient whose opacity falls from left to right, [40, 60, 4]."""
    alpha = np.broadcast_to(np.linspace(255, 0, 60).astype(np.uint8)[None, :, None], (40, 60, 1))
    return np.concatenate([_gradient(40, 60), alpha], axis=-1)


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    """[height, width, 3], every byte as likely as any other."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


IMAGES = {
    "digit": lambda: _digit(3, 4),
    "small-digit": lambda: _digit(17, 1),
    "grey": lambda: _gradient(50, 70)[..., 0],
    "rgba": _with_alpha,
    "one-pixel": lambda: np.array([[[200, 30, 90]]], np.uint8),
    "as-large-as-the-model-reads": lambda: _noise(32, 32),
    "noise": lambda: _noise(47, 61),
    "wide": lambda: _gradient(9, 200),
    "tall": lambda: _gradient(200, 3),
    "large": lambda: _gradient(1500, 2000),
}
"""Makers of arrays [H, W], [H, W, 3] or [H, W, 4]."""

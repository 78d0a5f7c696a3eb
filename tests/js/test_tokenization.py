"""JavaScript gives the ids and offsets that Python gives: real reviews, nasty texts, and characters of all kinds."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import subprocess
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from rekd_edge.data import train_tokenizer
from rekd_edge.runtime.text import encode_texts, limit_tokenizer

ROOT = Path(__file__).parents[2]
JS = ROOT / "js"
SHARED = ROOT.parent / "shared"
MAX_LENGTH = 512

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (JS / "node_modules").is_dir(),
    reason="needs Node and its packages: cd js && npm ci --ignore-scripts",
)


def nasty_texts() -> list[str]:
    spec = importlib.util.spec_from_file_location("vector_inputs", ROOT / "tests" / "vectors" / "inputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.TEXTS.values())


def random_texts(count: int) -> list[str]:
    """Words of characters from everywhere, with ASCII between them.

    Left out are combining marks of Unicode 9 and later, which the Rust library knows as characters and not as marks: it
    swaps two of them where their order is not canonical, without their offsets.
    """
    rng = random.Random(0)
    strip = normalizers.BertNormalizer(clean_text=False, strip_accents=True, lowercase=False)
    blocks = [(0x20, 0x7F), (0, 0x250), (0x250, 0x3000), (0x3000, 0xD800), (0xE000, 0x10000), (0x10000, 0x20000)]
    blocks += [(0x300, 0x370), (0x2000, 0x2070), (0x590, 0x700), (0x1F300, 0x1FAFF), (0x20000, 0x110000)]

    def known(character: str) -> bool:
        return not unicodedata.combining(character) or strip.normalize_str(character) == ""

    def text() -> str:
        characters = filter(known, [chr(rng.randrange(*rng.choice(blocks))) for _ in range(rng.randrange(40))])
        return "".join(" film "[rng.randrange(6)] if rng.random() < 0.4 else each for each in characters)

    return [text() for _ in range(count)]


def differences(tokenizer: Tokenizer, texts: Sequence[str], folder: Path) -> list[str]:
    """The texts of which JavaScript gives other ids, offsets or another end."""
    file = folder / "tokenizer.json"
    limit_tokenizer(tokenizer, MAX_LENGTH).save(str(file))
    question = json.dumps({"tokenizer": str(file), "max_length": MAX_LENGTH, "texts": list(texts)})
    answers = subprocess.run(
        ["node", str(JS / "scripts" / "encode.js")], input=question, capture_output=True, text=True, check=True
    ).stdout.splitlines()

    ours = [[row.ids, [list(each) for each in row.offsets], row.truncated] for row in encode_texts(tokenizer, texts)]
    assert len(answers) == len(ours)
    return [text for text, answer, row in zip(texts, answers, ours, strict=True) if json.loads(answer) != row]


def byte_level(prefix: bool, trim: bool) -> Tokenizer:
    """A byte-level BPE as RoBERTa's, with merges of the nasty texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>", "<pad>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text.encode(errors="replace").decode() for text in nasty_texts()], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=prefix, trim_offsets=trim
    )
    return tokenizer


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece(lowercase: bool, tmp_path: Path) -> None:
    texts = [*nasty_texts(), *random_texts(2000)]
    tokenizer = train_tokenizer([text.encode(errors="replace").decode() for text in nasty_texts()], 400)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    assert differences(tokenizer, texts, tmp_path) == []


def test_every_character(tmp_path: Path) -> None:
    codes = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    texts = ["".join(f"a{chr(code)}b " for code in codes[i : i + 100]) for i in range(0, len(codes), 4000)]
    texts += [f"a{chr(code)}b" for code in codes[:0x3000] + codes[0xF000:0x11800]]
    assert differences(train_tokenizer(["ab caf\N{LATIN SMALL LETTER E WITH ACUTE}"], 50), texts, tmp_path) == []


@pytest.mark.parametrize(("prefix", "trim"), [(False, True), (True, True), (False, False)])
def test_byte_level(prefix: bool, trim: bool, tmp_path: Path) -> None:
    assert differences(byte_level(prefix, trim), [*nasty_texts(), *random_texts(500)], tmp_path) == []


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("make", [lambda file: Tokenizer.from_file(str(file))], ids=["MiniLM"])
def test_five_thousand_reviews(make: Callable[[Path], Tokenizer], tmp_path: Path) -> None:
    reviews = SHARED / "data" / "imdb" / "test.parquet"
    file = SHARED / "models" / "all-MiniLM-L6-v2" / "tokenizer.json"
    if not reviews.is_file() or not file.is_file():
        pytest.skip("needs IMDB and MiniLM in ../shared")
    parquet = pytest.importorskip("pyarrow.parquet")

    texts = parquet.read_table(reviews, columns=["text"])["text"].to_pylist()[:5000]
    assert len(texts) == 5000
    assert differences(make(file), [*texts, *nasty_texts(), *random_texts(1000)], tmp_path) == []

"""Make the vectors: five bundles, and what the runs and the int8 graphs answer to nasty inputs.

    python tests/vectors/make.py --tokenizer ../shared/models/all-MiniLM-L6-v2/tokenizer.json

Every runtime reads the same files: Python (tests/runtime/test_vectors.py), Node and a browser (js/test) and aarch64
(benchmarks/aarch64.py). A new run gives other bundles and other answers, so all files are written together.

    bundles/{text,image}-{fp32,int8}/    as `rekd-edge export` writes them
    bundles/text-4bit/                   int8 too, of a run with a local generator and word embeddings in 4 bits
    images/NAME.png                      the inputs of the image bundles; those of the text bundles stand in text.json
    {text,image}.json                    for every input: ids and offsets (text) or a digest of the pixels (image), and
                                         margins, masks, logits and labels of the run, of the int8 graph and (text)
                                         of the one with 4 bits

Offsets count Unicode code points. Margins of positions that are no features are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

sys.path.insert(0, str(Path(__file__).parent))
from inputs import IMAGES, TEXTS

from rekd_edge.data import DataSettings, load_data
from rekd_edge.export import export_bundle
from rekd_edge.export.parity import Answers, graph_answers, torch_answers
from rekd_edge.modeling import RationaleModel
from rekd_edge.runtime import Rationalizer
from rekd_edge.runtime.image import image_pixels, load_image
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train

HERE = Path(__file__).parent
FREQUENT = range(1996, 4000)
"""Ids of the most frequent words in BERT's vocabulary, "the" first."""
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
SETTINGS: dict[str, dict[str, Any]] = {
    "text": {"data.train_limit": 2000, "data.eval_limit": 400, "data.max_length": 64, "epochs": 6},
    "image": {"data.image_size": 32, "epochs": 12},
}
FOUR_BITS: dict[str, Any] = {
    "generator": "local",
    "round_embeddings": 4,
    "control": None,
    "warm_start": False,
    "data.train_limit": 600,
    "data.eval_limit": 200,
    "epochs": 4,
}
RECIPES = {"text": "planted", "image": "digits"}


def main() -> None:
    """Train, export and answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="BERT's uncased WordPiece, as tokenizer.json.")
    tokenizer = Tokenizer.from_file(str(parser.parse_args().tokenizer))
    torch.set_num_threads(1)

    for name in ("bundles", "images"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    write_images()

    with tempfile.TemporaryDirectory() as folder:
        write_backbones(Path(folder), tokenizer)
        for task, recipe in RECIPES.items():
            run = Path(folder, f"{task}-run")
            settings = {**SETTINGS[task], "backbone": str(Path(folder, task)), "learning_rate": 3e-3}
            train(load_config(recipe, settings), run)
            for precision in ("fp32", "int8"):
                export_bundle(run, HERE / "bundles" / f"{task}-{precision}", precision=precision)

            if task == "text":
                make_four_bits(settings, Path(folder, "text-4bit-run"))
            write_answers(task, run)


def make_four_bits(settings: dict[str, Any], run: Path) -> None:
    """The bundle whose word embeddings take 4 bits."""
    train(load_config(RECIPES["text"], {**settings, **FOUR_BITS}), run)
    export_bundle(run, HERE / "bundles" / "text-4bit", precision="int8")


def write_backbones(folder: Path, tokenizer: Tokenizer) -> None:
    """A tiny BERT with a real vocabulary, and a tiny ViT that reads 8 x 8 patches of 4 pixels."""
    texts = [*TEXTS.values(), *load_data("builtin:planted", DataSettings()).split("train").inputs]
    small = cut_vocabulary(tokenizer, [text.encode(errors="replace").decode() for text in texts])

    torch.manual_seed(0)
    bert = BertConfig(**TINY, vocab_size=small.get_vocab_size(), max_position_embeddings=64)
    BertModel(bert).save_pretrained(folder / "text")
    small.save(str(folder / "text" / "tokenizer.json"))
    ViTModel(ViTConfig(**TINY, image_size=32, patch_size=4)).save_pretrained(folder / "image")


def cut_vocabulary(tokenizer: Tokenizer, texts: Sequence[str]) -> Tokenizer:
    """BERT's tokenizer with its most frequent words, the pieces of these texts, and every special token."""
    document = json.loads(tokenizer.to_str())
    tokenizer = Tokenizer.from_str(json.dumps({**document, "truncation": None, "padding": None}))
    vocabulary = document["model"]["vocab"]

    specials = {token["id"] for token in document["added_tokens"]}
    taken = {i for encoding in tokenizer.encode_batch(list(texts)) for i in encoding.ids}
    spelling = {i for piece, i in vocabulary.items() if len(piece.removeprefix("##")) == 1 and piece.isascii()}
    kept = sorted(specials | taken | spelling | set(FREQUENT))

    new = {old: i for i, old in enumerate(kept)}
    document["model"]["vocab"] = {piece: new[i] for piece, i in vocabulary.items() if i in new}
    for token in document["added_tokens"]:
        token["id"] = new[token["id"]]
    for token in document["post_processor"]["special_tokens"].values():
        token["ids"] = [new[i] for i in token["ids"]]

    return Tokenizer.from_str(json.dumps({**document, "truncation": None, "padding": None}))


def write_images() -> None:
    """Every input as a PNG."""
    (HERE / "images").mkdir()
    for name, make in IMAGES.items():
        Image.fromarray(make()).save(HERE / "images" / f"{name}.png", optimize=True)


def write_answers(task: str, run: Path) -> None:
    """`TASK.json`: the inputs, how they enter the graph, and what the run and the int8 graphs say."""
    bundle = HERE / "bundles" / f"{task}-int8"
    rationalizer = Rationalizer.load(bundle, threads=1)
    inputs: Sequence[Any] = list(TEXTS.values())
    if task == "image":
        inputs = [HERE / "images" / f"{name}.png" for name in IMAGES]

    feeds = [rationalizer.prepare([each]) for each in inputs]
    answers = {
        "run": torch_answers(RationaleModel.from_pretrained(run), feeds),
        "int8": graph_answers(bundle / "model.onnx", feeds),
    }
    if task == "text":
        answers["4bit"] = graph_answers(bundle.with_name("text-4bit") / "model.onnx", feeds)

    entering = text_inputs(rationalizer) if task == "text" else image_inputs(rationalizer)
    rows = [
        {**row, **{name: answer(given, i, row.get("ids"), rationalizer) for name, given in answers.items()}}
        for i, row in enumerate(entering)
    ]

    lines = ",\n".join(json.dumps(row) for row in rows)  # ASCII alone: some inputs have no UTF-8 form
    (HERE / f"{task}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def text_inputs(rationalizer: Rationalizer) -> list[dict[str, Any]]:
    """Texts with their ids, tokens and offsets, special tokens included."""
    encoded = rationalizer.encode(list(TEXTS.values()))
    return [
        {"name": name, "text": text, "ids": row.ids, "tokens": row.tokens, "offsets": row.offsets}
        | {"truncated": row.truncated}
        for (name, text), row in zip(TEXTS.items(), encoded, strict=True)
    ]


def image_inputs(rationalizer: Rationalizer) -> list[dict[str, Any]]:
    """Images with the SHA-256 of the pixels that Pillow makes of them, and the pixels themselves."""
    settings = rationalizer.manifest.image
    assert settings is not None
    found = []
    for name in IMAGES:
        pixels = image_pixels(load_image(HERE / "images" / f"{name}.png"), settings)
        row = {"name": name, "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
        found.append({**row, "pixels": pixels.flatten().tolist()})
    return found


def answer(answers: Answers, i: int, ids: list[int] | None, rationalizer: Rationalizer) -> dict[str, Any]:
    """Margins and mask of the features, logits and label of one row."""
    feature = np.ones(len(answers.masks[i]), bool)
    if rationalizer.manifest.text is not None:
        feature = ~np.isin(ids, rationalizer.manifest.text.special_token_ids)

    return {
        "margins": [float(f"{value:.9g}") for value in answers.margins[i][feature]],
        "mask": answers.masks[i][feature].astype(int).tolist(),
        "logits": [float(f"{value:.9g}") for value in answers.logits[i]],
        "label": rationalizer.manifest.labels[int(answers.logits[i].argmax())],
    }


if __name__ == "__main__":
    main()

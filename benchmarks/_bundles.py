"""Bundles of a given geometry with random weights, and the real texts and images that they are measured on.

What a graph costs depends on its geometry and on how much is selected, not on what its weights say. So nothing is
trained here: the margin bias is calibrated on the very inputs that are measured, which brings their mean rationale
ratio to the target. Under random weights the ratio still varies from input to input (and, as position embeddings are
random too, from length to length), so of a pool the inputs are measured whose own ratio lies nearest to the target;
every row of a result states the mean that was realised.

Both towers share the embeddings of word pieces or patches, as after training with `share_embeddings`. Each bundle is
checked as any export is, on real data, int8 against fp32 too; one that failed would not be measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

import rekd_edge
import rekd_edge.export
from rekd_edge.data import DataSettings, DataSource, load_data
from rekd_edge.export import export_bundle
from rekd_edge.files import staged_folder, write_json
from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.modeling.encoders import build_encoder
from rekd_edge.modeling.encoders.backbones import backbone_config, backbone_image_settings, backbone_tokenizer
from rekd_edge.modeling.encoders.local import WIDTH, LocalNet
from rekd_edge.modeling.rounding import round_embeddings
from rekd_edge.progress import say
from rekd_edge.runs import RunFolder
from rekd_edge.runtime.image import ImageSettings, image_pixels, normalise
from rekd_edge.runtime.text import encode_texts, limit_tokenizer, special_token_ids
from rekd_edge.training.inference import predict
from rekd_edge.training.preparation import Preprocessing

__all__ = [
    "GENERATORS",
    "GEOMETRIES",
    "LOCAL",
    "MAX_LENGTH",
    "SEED",
    "TRANSFORMER",
    "Feed",
    "Geometry",
    "Material",
    "Recipe",
    "rationale_ratio",
    "selected",
]

SEED = 2026
MAX_LENGTH = 512
POOL = {"text": 128, "image": 512}
"""Inputs (of each length) to calibrate on and to choose from; the ratios of images vary more."""
CALIBRATION_ROWS = 128
VERIFIED_ROWS = 64

CODE = [
    hashlib.sha256(source.read_bytes()).hexdigest()
    for package in (rekd_edge, rekd_edge.export)
    for source in sorted(Path(package.__path__[0]).rglob("*.py"))
]
"""What the code that builds bundles is, as this process loaded it."""

Feed = dict[str, NDArray[Any]]
"""The arrays of a batch."""


LOCAL, TRANSFORMER = GENERATORS = "local", "transformer"
"""Families of generators: convolutions on the predictor's embeddings, or layers like the predictor's."""
TEXT_HEAD_HIDDEN = 256


@dataclass(frozen=True)
class Geometry:
    """An encoder, how many such layers a generator of its family has, and how much is selected."""

    task: str
    generator_layers: int
    ratio: float


GEOMETRIES = {
    "bert-mini": Geometry("text", 1, 0.10),
    "bert-small": Geometry("text", 1, 0.10),
    "vit-tiny": Geometry("image", 2, 0.15),
}


class Material:
    """The data, the tokenizer and the folder of what is built, as the command line gives them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.specs = {"text": arguments.imdb, "image": arguments.cifar10}
        self.tokenizer_source: str = arguments.tokenizer
        self.work: Path = arguments.work
        self._data: dict[str, DataSource] = {}
        self._pools: dict[tuple[str, int], list[Any]] = {}

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """The options that every script has."""
        parser.add_argument("--imdb", default="imdb", metavar="SPEC", help="reviews to measure on")
        parser.add_argument("--cifar10", default="cifar10", metavar="SPEC", help="images to measure on")
        parser.add_argument("--tokenizer", default="bert-base-uncased", metavar="NAME", help="hub name or folder")
        parser.add_argument("--work", type=Path, default=Path("runs/bench"), help="folder of the built models")

    def tokenizer(self, tokens: int = MAX_LENGTH) -> Tokenizer:
        """BERT's tokenizer, cutting texts at `tokens`, special tokens included."""
        tokenizer = backbone_tokenizer(self.tokenizer_source)
        if tokenizer is None:
            raise SystemExit(f"{self.tokenizer_source} holds no tokenizer; give --tokenizer another.")
        return limit_tokenizer(tokenizer, tokens)

    @cached_property
    def image(self) -> ImageSettings:
        """How images are prepared for ViT."""
        return backbone_image_settings("random:vit-tiny", backbone_config("random:vit-tiny"), None)

    def preprocessing(self, task: str) -> Preprocessing:
        """What a run of the task keeps of its preprocessing."""
        return Preprocessing(self.tokenizer(), MAX_LENGTH) if task == "text" else Preprocessing(image=self.image)

    def data(self, task: str) -> DataSource:
        """IMDB or CIFAR-10."""
        if task not in self._data:
            self._data[task] = load_data(self.specs[task], DataSettings())
        return self._data[task]

    def inputs(self, task: str, tokens: int) -> list[Any]:
        """`POOL` images of the test split, or reviews of it cut to exactly `tokens` tokens."""
        if (task, tokens) not in self._pools:
            examples = self.data(task).split("test")
            order = np.random.default_rng(SEED).permutation(len(examples)).tolist()

            if task == "image":
                pool = list(examples.select(order[: POOL["image"]]).inputs)
            else:
                pool = self._texts([str(examples.inputs[i]) for i in order], tokens)

            self._pools[task, tokens] = pool

        return self._pools[task, tokens]

    def _texts(self, reviews: list[str], tokens: int) -> list[str]:
        tokenizer, wider = self.tokenizer(tokens), self.tokenizer(tokens + 1)
        found: list[str] = []

        for review in reviews:
            (encoded,) = encode_texts(tokenizer, [review])
            cut = review[: max(end for _, end in encoded.offsets)]
            # a cut inside a word may change its pieces, and then their number
            if len(encoded.ids) == tokens == len(encode_texts(wider, [cut])[0].ids):
                found.append(cut)
            if len(found) == POOL["text"]:
                return found

        raise SystemExit(
            f"{self.specs['text']} has {len(found)} reviews of {tokens} tokens, {POOL['text']} are needed."
        )

    def feeds(self, task: str, tokens: int) -> list[Feed]:
        """`inputs` as arrays, one row each."""
        return self.arrays(task, self.inputs(task, tokens))

    def calibration(self, task: str) -> list[Feed]:
        """Rows of the training split, for the peers that calibrate: texts of their own length, 256 tokens at most."""
        train = self.data(task).split("train")
        order = np.random.default_rng(SEED).permutation(len(train))[:CALIBRATION_ROWS]
        return self.arrays(task, list(train.select(order).inputs), 256)

    def arrays(self, task: str, inputs: Sequence[Any], tokens: int = MAX_LENGTH) -> list[Feed]:
        """Preprocess texts or images, one row each and without padding."""
        if task == "image":
            return [{"pixel_values": normalise(image_pixels(image, self.image)[None], self.image)} for image in inputs]
        rows = [np.array([e.ids], np.int64) for e in encode_texts(self.tokenizer(tokens), list(inputs))]
        return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]


@dataclass(frozen=True)
class Recipe:
    """One model to build; built anew when this or the code of rekd_edge changes."""

    geometry: str
    generator: str
    """One of `GENERATORS`."""
    generator_layers: int | None
    """None for as many as a local generator has by default."""
    ratio: float
    tokens: tuple[int, ...]
    """Lengths of the texts that the bias is calibrated on, all together."""
    width: int = WIDTH
    """Channels of a local generator."""
    embedding_bits: int = 8
    """What the word embeddings that a local generator reads were rounded to."""
    context: bool = False
    """Whether a local generator sees the mean of the whole input."""

    @classmethod
    def of(cls, geometry: str, tokens: Sequence[int], generator: str = LOCAL, **changes: Any) -> Recipe:
        """The geometry's own recipe, with `generator_layers`, `ratio`, `width` or `context` changed."""
        own = GEOMETRIES[geometry]
        layers = None if generator == LOCAL else own.generator_layers
        return cls(
            geometry, generator, **{"generator_layers": layers, "ratio": own.ratio, **changes}, tokens=tuple(tokens)
        )

    def facts(self) -> dict[str, Any]:
        """What a row of results says of the generator."""
        return {"generator": self.generator, "generator_layers": self.generator_config()["num_hidden_layers"]}

    @property
    def head_hidden(self) -> int | None:
        """Hidden width of the selection head."""
        if GEOMETRIES[self.geometry].task == "image":
            return None
        return min(TEXT_HEAD_HIDDEN, self.width) if self.generator == LOCAL else TEXT_HEAD_HIDDEN

    def generator_config(self) -> dict[str, Any]:
        """The configuration of the generator's encoder, but for the size of the vocabulary."""
        predictor = backbone_config(f"random:{self.geometry}")
        config = (
            predictor if self.generator == TRANSFORMER else LocalNet.config_for(predictor, self.width, self.context)
        )
        layers = config.num_hidden_layers if self.generator_layers is None else self.generator_layers
        return {**config.to_dict(), "num_hidden_layers": layers}

    def bundle(self, material: Material, precision: str, trim: bool = False) -> Path:
        """The folder of the exported bundle, on request without the pieces that the training texts lack."""
        lengths = "-".join(map(str, self.tokens))
        layers = "" if self.generator_layers is None else self.generator_layers
        bits = "" if self.embedding_bits == 8 else f"-{self.embedding_bits}bit"
        local = f"{self.width}{'c' if self.context else ''}{bits}" if self.generator == LOCAL else ""
        name = f"{self.geometry}-{self.generator}{layers}{local}-{round(100 * self.ratio)}p-{lengths}t"

        folder = material.work / f"{name}-{self._fingerprint(material)}"
        if not (folder / "run").is_dir():
            for outdated in material.work.glob(f"{name}-*"):
                shutil.rmtree(outdated)
            say(f"building {folder.name}")
            _write_run(folder / "run", self, material)

        bundle = folder / (f"{precision}-trimmed" if trim else precision)
        if not bundle.is_dir():
            settings = DataSettings(train_limit=None if trim else CALIBRATION_ROWS, eval_limit=VERIFIED_ROWS)
            data = material.specs[GEOMETRIES[self.geometry].task]
            export_bundle(folder / "run", bundle, precision, calibration_data=data, data_settings=settings, trim=trim)

        return bundle

    def _fingerprint(self, material: Material) -> str:
        made_of = [asdict(self), material.specs, material.tokenizer_source, POOL, CODE]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:8]


def _write_run(folder: Path, recipe: Recipe, material: Material) -> None:
    """A finished run with random weights, calibrated on the inputs that will be measured."""
    task = GEOMETRIES[recipe.geometry].task
    preprocessing = material.preprocessing(task)
    predictor, generator = backbone_config(f"random:{recipe.geometry}").to_dict(), recipe.generator_config()

    tokenizer = preprocessing.tokenizer
    if tokenizer is not None:
        predictor["vocab_size"] = generator["vocab_size"] = tokenizer.get_vocab_size()

    config = RationaleConfig(
        task=task,
        method="re",
        labels=material.data(task).label_names,
        predictor=predictor,
        generator=generator,
        head_hidden=recipe.head_hidden,
        mask_mode="drop",
        share_embeddings=True,
        target_ratio=recipe.ratio,
        max_length=preprocessing.max_length,
        special_token_ids=special_token_ids(tokenizer) if tokenizer is not None else [],
        pad_token_id=preprocessing.pad_token_id,
        image=None if preprocessing.image is None else preprocessing.image.to_dict(),
    )
    torch.manual_seed(SEED)
    model = RationaleModel(config, build_encoder(config.predictor), build_encoder(generator)).eval()
    if task == "text" and model.generator_in_float:
        round_embeddings(model, recipe.embedding_bits)

    rows = [feed for tokens in recipe.tokens for feed in material.feeds(task, tokens)]
    loader = [{"labels": torch.zeros(1), **{k: torch.from_numpy(v) for k, v in feed.items()}} for feed in rows]
    predict(model, loader, calibrate=True)

    with staged_folder(folder) as staging:
        model.save_pretrained(staging)
        preprocessing.save(staging)
        write_json(RunFolder(staging).record_file, {"recipe": {"data": {"spec": material.specs[task]}}, "seed": SEED})
        write_json(RunFolder(staging).metrics_file, {})


def selected(sessions: Sequence[InferenceSession], feeds: Sequence[Feed], ratio: float, count: int) -> list[int]:
    """Which rows to measure: the `count` whose ratio is nearest to the target in the worst of the graphs."""
    distance = [max(abs(rationale_ratio(session, [feed]) - ratio) for session in sessions) for feed in feeds]
    return np.argsort(distance, kind="stable")[:count].tolist()


def rationale_ratio(session: InferenceSession, feeds: Sequence[Feed]) -> float:
    """Mean of |M| / L over the rows, as a bundle's graph has them."""
    ratios: list[float] = []
    for feed in feeds:
        mask, margin = session.run(["rationale_mask", "selection_margin"], feed)
        features = (margin > np.finfo(np.float32).min).sum(axis=1)  # the margin of all other positions
        ratios += (mask.sum(axis=1) / features).tolist()
    return float(np.mean(ratios))

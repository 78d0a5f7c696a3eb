"""How narrow, and how short-sighted, may a local generator be? Its agreement with a teacher, then its latency as int8.

    python benchmarks/local_generators.py TEACHER --data ../shared/data/imdb

A whole training for each width, reach and context takes hours; here generators alone learn the selection of one
finished RE run (equation 7 at τ = 1), on the word embeddings of its predictor, which stay as they are. Judged on test
texts at the teacher's ratio: the share of the teacher's features that are selected too, and the accuracy of the
teacher's predictor on what they select. Latency is that of the generator alone, as it stands in an int8 bundle of
BERT-mini, on 256 tokens, all in turn, beside a generator of one transformer layer. Writes
`results/local-generators.json` and `results/local-generators.png`.

`rekd_edge/sweep/grids/frontier-local.yaml` trains the same variants in full.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
import torch
from _bundles import LOCAL, MAX_LENGTH, SEED, TRANSFORMER, Feed, Recipe
from _peers import onnx_system
from _results import RESULTS, write_results
from latency import timed
from torch.nn.functional import kl_div, log_softmax

from rekd_edge.data import DataSettings, load_data
from rekd_edge.export.graph import export_graph
from rekd_edge.export.quantization import quantize
from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.modeling.encoders import build_encoder, encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import backbone_config
from rekd_edge.modeling.encoders.local import LocalNet
from rekd_edge.modeling.masking import padding_bias
from rekd_edge.modeling.model import Selection
from rekd_edge.modeling.towers import Generator
from rekd_edge.progress import say
from rekd_edge.runs import RunFolder
from rekd_edge.training.preparation import preprocessing_of_run

GEOMETRY = "bert-mini"
TOKENS = 256
ROWS = 8
BATCH = 32
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Variant:
    """A local generator: channels, convolutions, and whether it sees the mean of the text."""

    width: int
    layers: int
    context: bool = False

    @property
    def reach(self) -> int | None:
        """Tokens to either side that a margin depends on; None for all."""
        return None if self.context else 2**self.layers - 1


VARIANTS = [
    *(Variant(width, 3) for width in (16, 32, 64, 128)),
    *(Variant(64, layers) for layers in (1, 2, 4, 5)),
    *(Variant(32, layers) for layers in (2, 4)),
    Variant(64, 3, context=True),
    Variant(32, 3, context=True),
]


@dataclass(frozen=True)
class Batch:
    """Rows of one split, and what the teacher says of them."""

    inputs: torch.Tensor
    attention: torch.Tensor
    labels: torch.Tensor
    feature: torch.Tensor
    logits: torch.Tensor
    """Calibrated selection logits [batch, features, 2]."""


def main() -> None:
    """Write one row a variant, and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, help="a finished re run on texts")
    parser.add_argument("--data", required=True, help="SPEC that it was trained on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=60, help="turns of the measurement of latency")
    given = parser.parse_args()

    teacher = RationaleModel.from_pretrained(given.teacher).eval().requires_grad_(False)
    splits = {name: batches(teacher, given, name) for name in ("train", "validation", "test")}
    truth = judged(teacher, splits["test"], [deterministic(teacher, batch) for batch in splits["test"]])
    say(f"the teacher's predictor on its own masks: {truth['accuracy']:.3f}")

    rows = []
    for variant in VARIANTS:
        found = [learned(teacher, variant, splits, given.epochs, seed) for seed in range(given.seeds)]
        rows.append({**vars(variant), "reach": variant.reach, "accuracies": [each["accuracy"] for each in found]})
        rows[-1] |= {name: statistics.mean(each[name] for each in found) for name in found[0]}
        say(str(rows[-1]))

    add_latency(rows, given.repeats)
    plot(rows, truth["accuracy"])
    write_results(
        "local-generators",
        rows,
        teacher=truth,
        latency={"geometry": GEOMETRY, "tokens": TOKENS},
        plot="local-generators.png",
    )


def batches(teacher: RationaleModel, given: argparse.Namespace, split: str) -> list[Batch]:
    """A split of the teacher's data, in batches of texts as they come, with its selection logits."""
    recorded = RunFolder(given.teacher).read_record()["recipe"]["data"]
    fields = {name: value for name, value in recorded.items() if name != "spec"}
    examples = load_data(given.data, DataSettings(**{**fields, "test_limit": given.test_rows})).split(split)
    preprocessing = preprocessing_of_run(given.teacher, teacher.config)
    features, collate = preprocessing.features(examples), preprocessing.collator()
    found = []

    for start in range(0, len(features), BATCH):
        rows = collate([features[i] for i in range(start, min(start + BATCH, len(features)))])
        inputs, attention = rows["input_ids"], rows["attention_mask"]
        selection = teacher.select(inputs, attention)
        assert selection.logits is not None
        logits = selection.logits + torch.tensor([0.0, teacher.config.margin_bias])
        found.append(Batch(inputs, attention, rows["labels"], selection.feature, logits))

    return found


def deterministic(teacher: RationaleModel, batch: Batch) -> torch.Tensor:
    """The teacher's own masks, bool [batch, features]."""
    return (batch.logits[..., 1] > batch.logits[..., 0]) & batch.feature


def learned(
    teacher: RationaleModel, variant: Variant, splits: dict[str, list[Batch]], epochs: int, seed: int
) -> dict[str, float]:
    """What a generator that learnt from the teacher's selection reaches on the test split."""
    torch.manual_seed(seed)
    donor = teacher.predictor.encoder
    config = LocalNet.config_for(donor.config, variant.width, variant.context)
    config.num_hidden_layers = variant.layers
    encoder = encoder_from_backbone(LocalNet(config))
    encoder.share_embedding(donor)
    generator = Generator(encoder, variant.width, 0.1).train()

    weights = [weight for weight in generator.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, LEARNING_RATE)
    steps = epochs * len(splits["train"])
    rate = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, steps)

    for _ in range(epochs):
        for place in torch.randperm(len(splits["train"])).tolist():
            batch = splits["train"][place]
            wanted, own = (log_softmax(z, dim=-1) for z in (batch.logits, selection_logits(generator, batch)))
            loss = kl_div(own, wanted, reduction="none", log_target=True).sum(dim=-1)[batch.feature].mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()

    generator.eval()
    with torch.no_grad():
        margins = {name: [margin(generator, each) for each in splits[name]] for name in ("validation", "test")}
    ratio = teacher.config.target_ratio
    dev = torch.cat([m[b.feature] for m, b in zip(margins["validation"], splits["validation"], strict=True)])
    bias = dev.quantile(1 - ratio)
    masks = [(m > bias) & b.feature for m, b in zip(margins["test"], splits["test"], strict=True)]

    return judged(teacher, splits["test"], masks)


def selection_logits(generator: Generator, batch: Batch) -> torch.Tensor:
    """Of a generator, [batch, features, 2]."""
    return generator(batch.inputs, padding_bias(batch.attention))


def margin(generator: Generator, batch: Batch) -> torch.Tensor:
    """Of a generator, without a bias, [batch, features]."""
    logits = selection_logits(generator, batch)
    return logits[..., 1] - logits[..., 0]


def judged(teacher: RationaleModel, test: list[Batch], masks: list[torch.Tensor]) -> dict[str, float]:
    """Accuracy of the teacher's predictor on some masks, their ratio, and the share of its features that they hold."""
    right = count = chosen = real = shared = wanted = 0

    for batch, mask in zip(test, masks, strict=True):
        with torch.no_grad():
            logits = teacher.classify(batch.inputs, batch.attention, mask, Selection(batch.feature))
        theirs = deterministic(teacher, batch)
        right += int((logits.argmax(dim=-1) == batch.labels).sum())
        count += len(batch.labels)
        chosen, real = chosen + int(mask.sum()), real + int(batch.feature.sum())
        shared, wanted = shared + int((mask & theirs).sum()), wanted + int(theirs.sum())

    return {"accuracy": right / count, "rationale_ratio": chosen / real, "shared": shared / wanted}


def add_latency(rows: list[dict[str, Any]], repeats: int) -> None:
    """Time each generator as it stands in an int8 bundle of BERT-mini, beside one of one transformer layer, in turn."""
    recipes = [
        Recipe.of(GEOMETRY, [TOKENS], LOCAL, width=row["width"], generator_layers=row["layers"], context=row["context"])
        for row in rows
    ]
    recipes.append(Recipe.of(GEOMETRY, [TOKENS], TRANSFORMER))
    rows.append({"generator": TRANSFORMER, "layers": 1})

    ids = np.random.default_rng(SEED).integers(1000, 30000, (ROWS, 1, TOKENS))
    feeds: list[Feed] = [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in ids]

    with tempfile.TemporaryDirectory() as folder:
        graphs = [generator_graph(recipe, Path(folder) / f"{i}.onnx") for i, recipe in enumerate(recipes)]
        systems = [onnx_system("generator", "int8", graph, 1) for graph in graphs]
        times = timed([(system, feeds) for system in systems], repeats)

    for row, found in zip(rows, times, strict=True):
        row.update(found)
        say(f"{row}: {found['processor_ms']:.3f} ms of processor time")


def generator_graph(recipe: Recipe, path: Path) -> Path:
    """From tokens to margins alone, with random weights, as an int8 bundle holds it."""
    predictor = {**backbone_config(f"random:{GEOMETRY}").to_dict(), "num_hidden_layers": 1}
    generator = recipe.generator_config()
    config = RationaleConfig(
        task="text",
        method="re",
        labels=["neg", "pos"],
        predictor=predictor,
        generator=generator,
        head_hidden=recipe.head_hidden,
        mask_mode="drop",
        share_embeddings=True,
        max_length=MAX_LENGTH,
        special_token_ids=[101, 102],
    )
    model = RationaleModel(config, build_encoder(predictor), build_encoder(generator)).eval()
    export_graph(model, path)
    in_float = ["selection_margin"] if model.generator_in_float else []
    graph = quantize(onnx.load(path), [], in_float)
    onnx.save(onnx.utils.Extractor(graph).extract_model(["input_ids", "attention_mask"], ["selection_margin"]), path)
    return path


def plot(rows: list[dict[str, Any]], ceiling: float) -> None:
    """Accuracy against latency, one point a variant."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7, 4), layout="constrained")

    for row in rows:
        if "accuracy" not in row:
            continue
        reach = "all" if row["reach"] is None else row["reach"]
        spread = statistics.pstdev(row["accuracies"])
        panel.errorbar(
            row["processor_ms"], 100 * row["accuracy"], 100 * spread, fmt="o" if row["reach"] else "s", capsize=3
        )
        panel.annotate(f" {row['width']}, {reach}", (row["processor_ms"], 100 * row["accuracy"]), fontsize="small")

    panel.axhline(100 * ceiling, linestyle="--", color="0.5", label="the teacher's own masks")
    panel.set(xlabel="ms, int8, one thread (width, reach)", ylabel="test accuracy (%)")
    panel.legend()
    panel.grid(alpha=0.3)
    figure.savefig(RESULTS / "local-generators.png", dpi=100)


if __name__ == "__main__":
    main()

"""What does an explanation cost? Ours beside integrated gradients, LIME and occlusion of the black box.

    python benchmarks/explainers.py --imdb FOLDER --tokenizer FOLDER

Each explains one text of 256 tokens, the whole way from the string, on one thread. Integrated gradients (captum, 50
steps) need torch; LIME (1,000 samples) and occlusion (one forward pass a token) ask Optimum's int8 classifier through
ONNX Runtime, which is the fastest way for them. Each takes the batch size that was fastest for it in a trial.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from _bundles import GENERATORS, GEOMETRIES, LOCAL, SEED, Material, Recipe, selected
from _peers import BlackBox, onnx_system
from _results import in_turn, percentiles, write_results
from captum.attr import LayerIntegratedGradients
from lime.lime_text import LimeTextExplainer
from numpy.typing import NDArray

from rekd_edge import Rationalizer
from rekd_edge.progress import say
from rekd_edge.runtime.text import encode_texts, pad_ids

STEPS = 50
SAMPLES = 1000
TRIAL_SAMPLES = 64
BATCHES = (1, 8, 32)
BARS = {"integrated-gradients": 1000, "lime": 2500}
"""What an explainer takes of our time with a local generator, at least."""
QUICK_RUNS = 20
"""Runs a turn of what takes milliseconds."""


def main() -> None:
    """Write one row an explainer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--geometry", choices=[n for n, g in GEOMETRIES.items() if g.task == "text"], default="bert-mini"
    )
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--generator", nargs="+", choices=GENERATORS, default=list(GENERATORS))
    parser.add_argument("--repeats", type=int, default=3)
    Material.add_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    material = Material(arguments)
    recipes = [Recipe.of(arguments.geometry, [arguments.tokens], generator) for generator in arguments.generator]
    ours = [Rationalizer.load(recipe.bundle(material, "int8"), threads=arguments.threads) for recipe in recipes]
    texts = material.inputs("text", arguments.tokens)
    feeds = material.feeds("text", arguments.tokens)
    sessions = [each.session for each in ours]
    texts = [texts[i] for i in selected(sessions, feeds, recipes[0].ratio, arguments.repeats)]
    black_box = BlackBox(arguments.geometry, material)
    classifier = Classifier(black_box, material, arguments.threads)
    gradients = integrated_gradients(black_box.load(), material)
    lime = LimeTextExplainer(random_state=SEED)

    def explained_by_lime(text: str, size: int, samples: int = SAMPLES) -> Any:
        return lime.explain_instance(text, lambda rows: classifier(rows, size), num_samples=samples)

    trial = texts[0]
    steps = quickest(lambda size: gradients(trial, size), (STEPS, 10, 5, 1))
    occluded = quickest(lambda size: classifier.occlusion(trial, size), BATCHES)
    sampled = quickest(lambda size: explained_by_lime(trial, size, TRIAL_SAMPLES), BATCHES)
    ratios = [float(np.mean([each(text).rationale_ratio for text in texts])) for each in ours]
    systems: list[tuple[str, Callable[[str], Any], dict[str, Any]]] = [
        *(
            ("rekd-edge", each, {**recipe.facts(), "precision": "int8", "rationale_ratio": ratio, "batch_size": 1})
            for recipe, each, ratio in zip(recipes, ours, ratios, strict=True)
        ),
        ("optimum-classifier", lambda text: classifier([text], 1), {"precision": "int8", "batch_size": 1}),
        ("integrated-gradients", lambda text: gradients(text, steps), {"precision": "fp32", "batch_size": steps}),
        ("lime", lambda text: explained_by_lime(text, sampled), {"precision": "int8", "batch_size": sampled}),
        (
            "occlusion",
            lambda text: classifier.occlusion(text, occluded),
            {"precision": "int8", "batch_size": occluded},
        ),
    ]
    runs = [lambda turn, run=run: run(texts[turn % len(texts)]) for _, run, _ in systems]
    times = in_turn(runs, arguments.repeats, [QUICK_RUNS] * (len(ours) + 1) + [1] * 3)
    rows: list[dict[str, Any]] = []

    for (name, _, facts), seconds in zip(systems, times, strict=True):
        row = {"system": name, "geometry": arguments.geometry, "tokens": arguments.tokens, "threads": arguments.threads}
        row |= {**facts, "runs": len(seconds), **percentiles(seconds)}
        rows.append(row)
        row["times_ours"] = round(row["processor_ms"] / rows[0]["processor_ms"], 2)
        say(f"{name}: {row['p50_ms']:.1f} ms, {row['times_ours']} times ours")

    name = "explainers" if len(arguments.generator) > 1 else f"explainers-{arguments.generator[0]}"
    write_results(name, rows, summary=summary(rows))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each explainer's processor time over ours with each generator, by medians, and the shortest times (`best_`)."""
    return [
        {
            "system": row["system"],
            "generator": ours["generator"],
            "times_ours": round(row["processor_ms"] / ours["processor_ms"], 1),
            "best_times_ours": round(row["best_ms"] / ours["best_ms"], 1),
            **(
                {"bar": bar, "passed": row["processor_ms"] / ours["processor_ms"] >= bar}
                if ours["generator"] == LOCAL
                else {}
            ),
        }
        for ours in rows
        if ours["system"] == "rekd-edge"
        for row in rows
        if (bar := BARS.get(row["system"])) is not None
    ]


class Classifier:
    """Optimum's int8 classifier from strings to probabilities, rows of like length sharing a batch."""

    def __init__(self, black_box: BlackBox, material: Material, threads: int) -> None:
        self.system = onnx_system("optimum-classifier", "int8", black_box.optimum_graph("int8"), threads)
        self.tokenizer = material.tokenizer()
        self.pad, self.mask = (self.tokenizer.token_to_id(name) for name in ("[PAD]", "[MASK]"))

    def __call__(self, texts: Sequence[str], size: int) -> NDArray[np.float64]:
        """Probabilities [texts, classes]."""
        return self.probabilities([encoded.ids for encoded in encode_texts(self.tokenizer, texts)], size)

    def probabilities(self, ids: Sequence[Sequence[int]], size: int) -> NDArray[np.float64]:
        """Probabilities [rows, classes] of token ids."""
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        logits: list[Any] = [None] * len(ids)

        for start in range(0, len(ids), size):
            chosen = order[start : start + size]
            input_ids, attention_mask = pad_ids([ids[row] for row in chosen], self.pad)
            (outputs,) = self.system.run(self.system.feed({"input_ids": input_ids, "attention_mask": attention_mask}))
            for row, output in zip(chosen, outputs, strict=True):
                logits[row] = output

        exponentials = np.exp(np.array(logits, np.float64))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def occlusion(self, text: str, size: int) -> NDArray[np.float64]:
        """What each token takes away from the decision when it is masked, [features]."""
        (encoded,) = encode_texts(self.tokenizer, [text])
        places = np.flatnonzero(encoded.feature)
        rows = [encoded.ids] + [[*encoded.ids[:at], self.mask, *encoded.ids[at + 1 :]] for at in places]
        whole, *others = self.probabilities(rows, size)
        return whole[whole.argmax()] - np.array(others)[:, whole.argmax()]


def integrated_gradients(model: Any, material: Material) -> Callable[[str, int], Any]:
    """Integrated gradients on the embeddings against a baseline of padding, `size` steps in one batch."""
    tokenizer = material.tokenizer()
    pad = tokenizer.token_to_id("[PAD]")
    method = LayerIntegratedGradients(lambda ids, mask: model(ids, attention_mask=mask).logits, model.bert.embeddings)

    def explain(text: str, size: int) -> Any:
        (encoded,) = encode_texts(tokenizer, [text])
        ids = torch.tensor([encoded.ids])
        baseline = ids.masked_fill(torch.tensor([encoded.feature]), pad)
        mask = torch.ones_like(ids)

        with torch.no_grad():
            label = int(model(ids, attention_mask=mask).logits.argmax())

        attributions = method.attribute(
            ids, baseline, target=label, additional_forward_args=(mask,), n_steps=STEPS, internal_batch_size=size
        )
        return attributions.sum(dim=-1)

    return explain


def quickest(run: Callable[[int], Any], choices: Sequence[int]) -> int:
    """The choice at which the second run takes the shortest time."""
    seconds = []
    for choice in choices:
        run(choice)
        start = time.perf_counter()
        run(choice)
        seconds.append(time.perf_counter() - start)

    return choices[int(np.argmin(seconds))]


if __name__ == "__main__":
    main()

"""What do 8 and 4 bits of the word embeddings cost? Runs whose tables were not rounded, rounded and calibrated again.

    python benchmarks/embedding_bits.py RUN ... --data SPEC

Rounding is the last step of a training but for the calibration, so that a run with `round_embeddings=false` tells of
all: a copy is rounded, calibrated on the validation split, and read on the test split. `shared` is the part of its
features that the exact run selects too. Writes `results/embedding-bits-DATA.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _results import write_results

from rekd_edge.data import DataSettings, load_data
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.rounding import round_embeddings
from rekd_edge.progress import say
from rekd_edge.runs import RunFolder
from rekd_edge.training.inference import batches, predict
from rekd_edge.training.preparation import preprocessing_of_run

BITS = (None, 8, 4)
BATCH = 64


def main() -> None:
    """Write one row a run and number of bits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", required=True, help="SPEC that they were trained on")
    parser.add_argument("--test-rows", type=int, default=5000)
    given = parser.parse_args()
    rows = [row for run in given.runs for row in measured(run, given.data, given.test_rows)]
    write_results(f"embedding-bits-{Path(given.data.rpartition(':')[2]).name}", rows)


def measured(run: Path, spec: str, test_rows: int) -> list[dict[str, Any]]:
    """The rows of one run; the first is the run as it is."""
    model = RationaleModel.from_pretrained(run)
    preprocessing = preprocessing_of_run(run, model.config)
    recipe = RunFolder(run).read_record()["recipe"]
    fields = {name: value for name, value in recipe["data"].items() if name != "spec"}
    data = load_data(spec, DataSettings(**{**fields, "test_limit": test_rows}))

    dev, test = (
        batches(preprocessing.features(data.split(split)), preprocessing.collator(), BATCH)
        for split in ("validation", "test")
    )
    exact = model.predictor.encoder.embedding.weight.detach().clone()
    rows: list[dict[str, Any]] = []
    masks: list[np.ndarray] = []

    for bits in BITS:
        with torch.no_grad():
            model.predictor.encoder.embedding.weight.copy_(exact)
        if bits is not None:
            round_embeddings(model, bits)

        found = {"dev": predict(model, dev, calibrate=True), "test": predict(model, test)}
        row: dict[str, Any] = {"run": run.name, "generator": recipe["generator"], "seed": recipe["seed"], "bits": bits}
        row |= {f"{name}_accuracy": accuracy(each.logits, each.labels) for name, each in found.items()}

        chosen = [np.asarray(mask, bool) for mask in found["test"].masks]
        masks = masks or chosen
        same = sum(int((ours & theirs).sum()) for ours, theirs in zip(chosen, masks, strict=True))
        row["rationale_ratio"] = float(np.mean([mask.mean() for mask in chosen if len(mask)]))
        row["shared"] = same / sum(int(mask.sum()) for mask in masks)

        say(str(row))
        rows.append(row)

    return rows


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest logit is the label's."""
    return float((logits.argmax(axis=1) == labels).mean())


if __name__ == "__main__":
    main()

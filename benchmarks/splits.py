"""Where to split an encoder for `plmr`? The criterion's choice against every split that was trained.

    python benchmarks/splits.py --data ../shared/data/imdb --backbone ../shared/models/all-MiniLM-L6-v2 --layers 6 \\
        --recipe imdb-small --seeds 3

The criterion reads the encoder once, before any training: the generator ends where features are about to become alike
(see `choose_split`). Each split is trained at every seed and measured on the test split; runs are kept in `--work` and
resumed from there. `regret` is what the criterion's split loses, in mean accuracy, against the best of the grid.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _results import write_results

from rekd_edge.data import load_data
from rekd_edge.evaluate import evaluate
from rekd_edge.progress import say
from rekd_edge.training.configuration import TrainingConfig, load_config
from rekd_edge.training.display import TrainingDisplay
from rekd_edge.training.objectives.plmr import choose_split, homogeneity
from rekd_edge.training.preparation import load_encoder, prepare_preprocessing
from rekd_edge.training.run import train

FIRST_SEED = 2026
MEASURES = ("accuracy", "rationale_ratio", "rationale_f1")


def main() -> None:
    """Measure the encoder, train what is missing, and write one row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="imdb-small")
    parser.add_argument("--data", required=True, help="SPEC")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--layers", type=int, help="of the whole encoder; all by default")
    parser.add_argument("--splits", type=int, nargs="*", help="generator layers to try; every split by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-rows", type=int, default=5000)
    parser.add_argument("--work", type=Path, default=Path("runs/splits"))
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    overrides = {"data.spec": given.data, "backbone": given.backbone, **dict(s.split("=", 1) for s in given.settings)}
    recipe = replace(load_config(given.recipe, {**overrides, "method": "plmr"}), layers=given.layers)

    measured = homogeneities(recipe)
    chosen = choose_split(measured)
    say(f"homogeneities {' '.join(f'{value:.3f}' for value in measured)}: the criterion chooses {chosen}")
    splits = sorted({chosen, *(given.splits or range(2, len(measured) - 1))})
    rows = []

    for seed in range(FIRST_SEED, FIRST_SEED + given.seeds):
        for split in splits:
            folder = given.work / f"plmr-{recipe.mask_mode}-{split}-{seed}"
            config = replace(recipe, generator_layers=split, seed=seed)
            train(config, folder, folder.exists(), lambda stage, name=folder.name: [TrainingDisplay(f"{name} {stage}")])
            rows.append(row_of(folder, config, given.test_rows))

    summary = summarised(rows, chosen)
    data = Path(given.data.rpartition(":")[2]).name
    name = f"splits-{data}-{Path(given.backbone).name}-{recipe.mask_mode}"
    best = max(summary, key=lambda entry: entry["accuracy"])
    ours = next(entry for entry in summary if entry["chosen"])
    criterion = {
        "homogeneities": [round(float(value), 4) for value in measured],
        "chosen": chosen,
        "best": best["generator_layers"],
        "regret": best["accuracy"] - ours["accuracy"],
    }
    write_results(name, rows, summary=summary, criterion=criterion)
    say(json.dumps(criterion))


def homogeneities(recipe: TrainingConfig) -> Any:
    """Of the encoder's embeddings and after each of its layers, as a run without `generator_layers` measures them."""
    data = load_data(recipe.spec, recipe.data)
    preprocessing = prepare_preprocessing(recipe, data, [])
    torch.manual_seed(recipe.seed)
    return homogeneity(load_encoder(recipe.backbone, recipe.layers, preprocessing), data, preprocessing)


def row_of(folder: Path, config: TrainingConfig, test_rows: int) -> dict[str, Any]:
    """What a finished run reaches on the test split."""
    training, metrics = (json.loads((folder / name).read_text()) for name in ("training.json", "metrics.json"))
    row = {
        "backbone": Path(config.backbone).name,
        **{name: getattr(config, name) for name in ("generator_layers", "mask_mode", "seed")},
        **evaluate(folder, config.spec, replace(config.data, eval_limit=test_rows)),
        "dev_accuracy": metrics["accuracy"],
        "random_mask_accuracy": metrics.get("random_mask_accuracy"),
        "seconds": training["seconds"],
        "run": folder.name,
    }
    say(json.dumps(row))

    return row


def summarised(rows: list[dict[str, Any]], chosen: int) -> list[dict[str, Any]]:
    """Means over the seeds, one entry a split, and the standard deviation of its accuracy."""
    summary = []
    for split in dict.fromkeys(row["generator_layers"] for row in rows):
        group = [row for row in rows if row["generator_layers"] == split]
        entry = {"generator_layers": split, "chosen": split == chosen, "seeds": len(group)}
        entry |= {name: statistics.mean(row[name] for row in group) for name in MEASURES if name in group[0]}
        summary.append({**entry, "std": statistics.pstdev(row["accuracy"] for row in group)})

    return summary


if __name__ == "__main__":
    main()

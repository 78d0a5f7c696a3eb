"""How cheap may a generator be? Distilled students by generator depth and mask mode: accuracy, then latency as int8.

    python benchmarks/generators.py --data ../shared/data/imdb --backbone ../shared/models/all-MiniLM-L6-v2 \\
        --teacher RUN --paper-rate 3e-4 --seeds 3

The student's predictor has `--layers` layers. Its configurations are the paper's (a generator of as many layers, zeroed
embeddings) and the dropping ones with a generator of 1, 2, … layers. All students learn from one RE teacher, and those
of one mask mode share control and warm start. Zeroing learns more slowly (at the recipe's own rate its control on IMDB
stays at chance): with `--paper-rate` the paper's configuration gets that rate and twice the control's epochs.

Accuracy is on the test split, latency on its texts or images, all bundles interleaved. Runs are kept in `--work` and
resumed from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from _results import RESULTS, write_results
from methods import FIRST_SEED, add_latency

from rekd_edge.evaluate import evaluate
from rekd_edge.progress import say
from rekd_edge.training.configuration import TrainingConfig, load_config
from rekd_edge.training.display import TrainingDisplay
from rekd_edge.training.run import train

PAPER = "zero"


def main() -> None:
    """Train what is missing, measure, and write one row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="imdb-small")
    parser.add_argument("--data", required=True, help="SPEC")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--layers", type=int, default=3, help="of the student's predictor")
    parser.add_argument("--teacher", type=Path, required=True, help="a finished re run")
    parser.add_argument("--paper-rate", type=float, help="learning rate where embeddings are zeroed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--depths", type=int, nargs="*", help="deeper dropping generators; 2 to `--layers` by default")
    parser.add_argument("--depth-seeds", type=int, help="seeds of those; as many as of the others by default")
    parser.add_argument("--test-rows", type=int, default=5000)
    parser.add_argument("--work", type=Path, default=Path("runs/generators"))
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--repeats", type=int, default=200, help="timed predictions of each student; 0 for none")
    given = parser.parse_args()
    overrides = {"data.spec": given.data, "backbone": given.backbone, **dict(s.split("=", 1) for s in given.settings)}
    recipe = load_config(given.recipe, overrides)

    rows = [measured(given.teacher, recipe, "teacher", given.test_rows)]

    for config, folder in students(recipe, given):
        train(config, folder, folder.exists(), lambda stage, name=folder.name: [TrainingDisplay(f"{name} {stage}")])
        rows.append(measured(folder, config, "student", given.test_rows))

    if given.repeats:
        timed = [row for row in rows if row["seed"] == FIRST_SEED and row["role"] == "student"]
        add_latency(timed, recipe, given.work, given.repeats)

    name = f"generators-{data_name(given.data)}"
    summary = summarised(rows)
    write_results(name, rows, summary=summary)

    if given.repeats:
        plot(summary, RESULTS / f"{name}.png")


def students(recipe: TrainingConfig, given: argparse.Namespace) -> Iterator[tuple[TrainingConfig, Path]]:
    """Every configuration at every seed, those that the bar compares first."""
    layers, seeds = given.layers, range(FIRST_SEED, FIRST_SEED + given.seeds)
    compared = product(seeds, [(1, "drop"), (layers, PAPER)])
    depths = range(2, layers + 1) if given.depths is None else given.depths
    others = product(seeds[: given.depth_seeds], [(depth, "drop") for depth in depths])
    with_control: dict[str, str] = {}

    for seed, (depth, mode) in [*compared, *others]:
        folder = given.work / f"student-{mode}-{depth}-{seed}"
        student = replace(
            recipe,
            method="rekd",
            teacher=str(given.teacher),
            layers=layers,
            generator_layers=depth,
            mask_mode=mode,
            seed=seed,
            control=with_control.get(mode, "train"),
        )
        with_control.setdefault(mode, str(folder))

        if mode == PAPER and given.paper_rate:
            student = replace(student, learning_rate=given.paper_rate, control_epochs=2 * (recipe.epochs or 1))

        yield student, folder


def data_name(spec: str) -> str:
    """The last part of a SPEC."""
    return Path(spec.rpartition(":")[2]).name


def measured(folder: Path, recipe: TrainingConfig, role: str, test_rows: int) -> dict[str, Any]:
    """What a finished run is, and what it reaches on the test split."""
    training, metrics = (json.loads((folder / name).read_text()) for name in ("training.json", "metrics.json"))
    config = training["recipe"]
    row = {
        "data": data_name(recipe.spec),
        "method": config["method"],
        "variant": "" if role == "teacher" else "paper" if config["mask_mode"] == PAPER else "fast",
        "role": role,
        "backbone": Path(recipe.backbone).name,
        **{name: config[name] for name in ("layers", "generator_layers", "mask_mode", "target_ratio", "seed")},
        **evaluate(folder, recipe.spec, replace(recipe.data, eval_limit=test_rows)),
        "dev_accuracy": metrics["accuracy"],
        "random_mask_accuracy": metrics.get("random_mask_accuracy"),
        "seconds": training["seconds"],
        "run": folder.name,
    }
    say(json.dumps(row))

    return row


def summarised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds, one entry a configuration, and what it has over the paper's."""
    students = [row for row in rows if row["role"] == "student"]
    kinds = list(dict.fromkeys((row["mask_mode"], row["generator_layers"]) for row in students))
    of = {kind: [row for row in students if (row["mask_mode"], row["generator_layers"]) == kind] for kind in kinds}
    paper = [row["accuracy"] for kind in kinds if kind[0] == PAPER for row in of[kind]]
    summary = []

    for (mode, depth), group in of.items():
        accuracy = [row["accuracy"] for row in group]
        entry = {"mask_mode": mode, "generator_layers": depth, "seeds": len(group)}
        entry |= {"accuracy": statistics.mean(accuracy), "std": statistics.pstdev(accuracy)}
        entry["rationale_ratio"] = statistics.mean(row["rationale_ratio"] for row in group)

        if len(paper) == len(accuracy):
            entry["over_paper"] = statistics.mean(ours - theirs for ours, theirs in zip(accuracy, paper, strict=True))

        entry["p50_ms"] = next((row["p50_ms"] for row in group if "p50_ms" in row), None)
        summary.append(entry)

    return summary


def plot(summary: list[dict[str, Any]], path: Path) -> None:
    """The frontier: accuracy against latency."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(6, 4), layout="constrained")

    for entry in summary:
        style, name = "s" if entry["mask_mode"] == PAPER else "o", f"{entry['mask_mode']}, {entry['generator_layers']}"
        panel.errorbar(entry["p50_ms"], 100 * entry["accuracy"], 100 * entry["std"], fmt=style, capsize=3, label=name)

    panel.set(xlabel="ms, int8, one thread", ylabel="test accuracy (%)", xlim=(0, None))
    panel.legend(title="mode, generator layers")
    panel.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()

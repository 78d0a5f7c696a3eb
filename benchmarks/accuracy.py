"""Does distillation pay? CLS, RE teacher, RE student and REKD student beside their random-mask controls.

    python benchmarks/accuracy.py digits --seeds 3
    python benchmarks/accuracy.py imdb --data FOLDER --backbone FOLDER

Runs are kept in `--work` and resumed from there; every accuracy is on the test split. Students of one seed share their
control and with it their warm start.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _results import write_results

from rekd_edge.evaluate import evaluate
from rekd_edge.progress import say
from rekd_edge.training.configuration import TrainingConfig, load_config
from rekd_edge.training.display import TrainingDisplay
from rekd_edge.training.run import train

FIRST_SEED = 2026


@dataclass(frozen=True)
class Setting:
    """A data set with the sizes of its teacher and student, as (predictor layers, generator layers)."""

    recipe: str
    teacher: tuple[int, int]
    student: tuple[int, int]
    teacher_epochs: int = 1
    """Times the recipe's epochs: a teacher is trained once."""


SETTINGS = {
    "planted": Setting("planted", (2, 2), (1, 1), teacher_epochs=4),
    "digits": Setting("digits", (2, 2), (1, 1), teacher_epochs=4),
    "imdb": Setting("imdb-small", (4, 2), (2, 1)),
    "cifar10": Setting("cifar10-small", (6, 4), (3, 2)),
}


def main() -> None:
    """Train what is missing, then write one row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--data", help="SPEC in place of the recipe's")
    parser.add_argument("--backbone", help="backbone in place of the recipe's")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    setting = SETTINGS[arguments.setting]
    given = {"data.spec": arguments.data, "backbone": arguments.backbone}
    overrides = {key: value for key, value in given.items() if value}
    overrides |= dict(item.split("=", 1) for item in arguments.settings)
    recipe = load_config(setting.recipe, overrides)
    work = arguments.work / arguments.setting

    rows = []
    # what a warm start costs the others in epochs, a classifier may train on
    cls_epochs = (2 if recipe.warm_start else 1) * (recipe.epochs or 1)
    epochs = setting.teacher_epochs * (recipe.epochs or 1)
    teacher = replace(recipe, **sized("re", setting.teacher), seed=FIRST_SEED, epochs=epochs)
    rows.append(finished(teacher, work / "teacher-re", "teacher"))
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
        cls, re, rekd = (work / f"student-{method}-{seed}" for method in ("cls", "re", "rekd"))
        student = replace(recipe, **sized("re", setting.student), seed=seed)
        rows.append(finished(replace(student, method="cls", epochs=cls_epochs), cls, "student"))
        rows.append(finished(student, re, "student"))
        distilled = replace(student, method="rekd", teacher=str(work / "teacher-re"), control=str(re))
        rows.append(finished(distilled, rekd, "student"))
    write_results(f"accuracy-{arguments.setting}", rows, summary=summary(rows))


def sized(method: str, layers: tuple[int, int]) -> dict[str, Any]:
    """Method and depths of a run."""
    return {"method": method, "layers": layers[0], "generator_layers": layers[1]}


def finished(config: TrainingConfig, folder: Path, role: str) -> dict[str, Any]:
    """Train a run unless it is finished, and measure it and its control on the test split."""
    metrics = train(config, folder, folder.exists(), lambda stage: [TrainingDisplay(f"{folder.name} {stage}")])
    measured = evaluate(folder, config.spec, config.data)
    selects = config.method != "cls"
    row = {
        "data": config.spec if config.spec.startswith("builtin:") else Path(config.spec).name,
        "method": config.method,
        "variant": "",
        "role": role,
        "backbone": config.backbone if config.backbone.startswith("random:") else Path(config.backbone).name,
        "layers": config.layers,
        "generator_layers": config.generator_layers if selects else None,
        "mask_mode": config.mask_mode if selects else None,
        "target_ratio": json.loads((folder / "config.json").read_text())["target_ratio"],
        "seed": config.seed,
        **measured,
        "dev_accuracy": metrics["accuracy"],
        "random_mask_accuracy": None,
        "seconds": json.loads((folder / "training.json").read_text())["seconds"],
    }
    if selects:
        control = Path(config.control) / "control" if config.control != "train" else folder / "control"
        row["random_mask_accuracy"] = evaluate(control, config.spec, config.data)["accuracy"]
    say(json.dumps(row))
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean accuracy of the students by method, and what REKD gains over RE at each seed."""
    students = [row for row in rows if row["role"] == "student"]
    accuracy = {m: [row["accuracy"] for row in students if row["method"] == m] for m in ("cls", "re", "rekd")}
    gains = [b - a for a, b in zip(accuracy["re"], accuracy["rekd"], strict=True)]
    means = {f"student_{method}": statistics.mean(values) for method, values in accuracy.items()}
    return {**means, "gain_of_rekd_over_re": statistics.mean(gains), "gains": gains}


if __name__ == "__main__":
    sys.exit(main())

"""`rekd-edge demo`: the main job on built-in data, from a teacher to explained int8 predictions."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table
from transformers import TrainerCallback

from rekd_edge.data import load_data
from rekd_edge.evaluate import evaluate
from rekd_edge.export import export_bundle
from rekd_edge.files import built_in_place
from rekd_edge.methods import method_of
from rekd_edge.models import model_names
from rekd_edge.progress import SafeConsole, console, say
from rekd_edge.runs import RunFolder
from rekd_edge.runtime import Rationalizer
from rekd_edge.runtime.benchmark import BenchSettings, run_benchmark
from rekd_edge.runtime.display import show
from rekd_edge.training.configuration import TrainingConfig, load_config
from rekd_edge.training.control import counting_control
from rekd_edge.training.display import TrainingDisplay
from rekd_edge.training.run import train

__all__ = ["print_demo", "run_demo"]

DATA = ("planted", "digits")
TEACHER_LAYERS, STUDENT_LAYERS = 2, 1
TEACHER_EPOCHS = 4
"""Times the recipe's: a teacher is trained once."""
UNSEEN = 3
IN_THE_BOX = "sentiment"
SENTENCES = (
    "A tedious start, but a superb finale.",
    "I wanted to like it, yet the dialogue is wooden and the jokes fall flat.",
    "We laughed, we cried, and we will watch it again.",
)
"""What the model in the box is shown on, where there is one."""


def run_demo(output: Path) -> dict[str, Any]:
    """Train, distil, export, predict and measure on generated reviews and on scanned digits.

    Args:
        output: a new folder for runs and bundles.

    Returns:
        `seconds`, `rows` (one a model, on the test split), `bundles`, and `bench` of each bundle.

    Raises:
        InputError: the output folder is taken, or another call writes to it.
    """
    torch.set_num_threads(1)  # models this small gain little from a second one, and lose much where cores are shared
    started = time.perf_counter()
    report: dict[str, Any] = {"rows": [], "bundles": [], "bench": {}}

    with built_in_place(output, DATA):  # a run's record holds the path of its teacher
        for name in DATA:
            recipe = load_config(name, {})
            folder = output / name
            report["rows"] += _train_all(recipe, folder)

            bundle = folder / "student-rekd-int8"
            say(f"{name}: exporting the distilled student to int8")
            export_bundle(folder / "student-rekd", bundle, precision="int8")

            _show_predictions(bundle, recipe)
            report["bench"][name] = run_benchmark(bundle, BenchSettings(cold_starts=3))
            report["bundles"].append(str(bundle))

    if IN_THE_BOX in model_names():
        say(f"the model in the box, {IN_THE_BOX}, on real sentences:")
        _show_each(Rationalizer.load(IN_THE_BOX, threads=1), SENTENCES)

    return {"seconds": round(time.perf_counter() - started, 1), **report}


def _train_all(recipe: TrainingConfig, folder: Path) -> list[dict[str, Any]]:
    """CLS, RE teacher, RE student and REKD student; the students share size, seed, controls and warm start."""
    epochs = TEACHER_EPOCHS * (recipe.epochs or 1)
    # The teacher's controls are the longest trainings of the demo: one kind is enough to compare with.
    teacher = replace(recipe, method="re", layers=TEACHER_LAYERS, epochs=epochs, comparison_control="descent")
    student = replace(recipe, method="re", layers=STUDENT_LAYERS)
    runs = {
        "teacher-re": teacher,
        "student-cls": replace(student, method="cls", epochs=2 * (recipe.epochs or 1)),  # the others had a warm start
        "student-re": student,
        "student-rekd": replace(
            student, method="rekd", teacher=str(folder / "teacher-re"), control=str(folder / "student-re")
        ),
    }
    rows = []

    for name, config in runs.items():
        train(config, folder / name, callbacks=partial(_display, f"{folder.name} {name}"))
        measured = evaluate(folder / name, config.spec, config.data)
        row = {"data": config.spec, "method": config.method, "role": name.partition("-")[0], **measured}

        if (control := counting_control(RunFolder(folder / name))) is not None:
            row["random_mask_accuracy"] = evaluate(control.path, config.spec, config.data)["accuracy"]

        rows.append(row)

    return rows


def _display(title: str, stage: str) -> list[TrainerCallback]:
    return [TrainingDisplay(f"{title} {stage}")]


def _show_predictions(bundle: Path, recipe: TrainingConfig) -> None:
    """Predict a few test examples with the bundle and draw their rationales on standard error."""
    unseen = load_data(recipe.spec, recipe.data).split("test").select(range(UNSEEN))
    _show_each(Rationalizer.load(bundle), unseen.inputs)


def _show_each(rationalizer: Rationalizer, sources: Iterable[Any]) -> None:
    for source in sources:
        show(console, source, rationalizer(source))


def print_demo(report: dict[str, Any]) -> None:
    """One table on standard output, and what to try next."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in ("data", "model"):
        table.add_column(column, no_wrap=True)

    for column in ("acc.", "ratio", "control", "gain", "prec.", "recall", "F1"):
        table.add_column(column, justify="right", no_wrap=True)

    for row in report["rows"]:
        method = method_of(row["method"])
        gain = row["accuracy"] - _student_re(report, row["data"])["accuracy"] if method.needs_teacher else None
        found = row if method.selects else {}
        table.add_row(
            row["data"].removeprefix("builtin:"),
            f"{row['method'].upper()} {row['role']}",
            f"{row['accuracy']:.3f}",
            f"{row['rationale_ratio']:.1%}",
            _figure(row.get("random_mask_accuracy")),
            "" if gain is None else f"{gain:+.3f}",
            *(_figure(found.get(f"rationale_{name}")) for name in ("precision", "recall", "f1")),
            end_section=method.needs_teacher,
        )

    print()
    SafeConsole().print(table)
    print("""
Accuracy on the test split. ratio: share of the features selected; control: a
predictor of the same size on random masks of that ratio; gain: REKD over RE;
prec., recall, F1: of the rationale against the true cue words.
""")

    for (name, bench), bundle in zip(report["bench"].items(), report["bundles"], strict=True):
        print(
            f"{name}: the distilled student as int8 takes {bench['latency_ms']['p50']:.2f} ms, "
            f"{bench['size_bytes'] / 1e6:.1f} MB on disk, {bench['cold_start_s']:.2f} s from a cold start ({bundle})"
        )

    text, image = report["bundles"]
    print(f"\nDone in {report['seconds']:.0f} s. Try next:")
    print(f'  rekd-edge predict {text} "The tedious plot closed early and its lifeless finale repeated."')
    print(f"  rekd-edge inspect {image}")
    print("  rekd-edge train --method re --data imdb --backbone sentence-transformers/all-MiniLM-L6-v2 \\")
    print("    --config imdb-small --output teacher")


def _student_re(report: dict[str, Any], data: str) -> dict[str, Any]:
    return next(r for r in report["rows"] if (r["data"], r["method"], r["role"]) == (data, "re", "student"))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"

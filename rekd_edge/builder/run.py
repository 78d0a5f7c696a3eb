"""`rekd-edge build`: look at the data, plan, train teacher and student, export, measure, and show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from rekd_edge.builder.facts import look_at
from rekd_edge.builder.plan import DEFAULT_HOURS, QUICK_HOURS, make_plan
from rekd_edge.data import DataSettings, load_data
from rekd_edge.engines import EngineSettings
from rekd_edge.errors import FailureError, InputError
from rekd_edge.evaluate import evaluate
from rekd_edge.evaluation import most_frequent
from rekd_edge.evaluation.intervals import paired_difference, wilson_interval
from rekd_edge.export import export_bundle
from rekd_edge.files import check_place, locked, read_json, write_json, write_text
from rekd_edge.progress import say
from rekd_edge.report import write_report
from rekd_edge.runtime.benchmark import BenchSettings, run_benchmark
from rekd_edge.sweep.grid import load_grid
from rekd_edge.sweep.run import run_sweep
from rekd_edge.systems import open_system

__all__ = ["BACKBONES", "Built", "build"]

BACKBONES = {"text": "sentence-transformers/all-MiniLM-L6-v2", "image": "facebook/deit-tiny-patch16-224"}
GRID, RUNS, BUNDLE, PAGE, SUMMARY = "grid.yaml", "sweep", "bundle", "report.html", "build.json"


TEST_ROWS = 5000
"""Test rows on which the end is measured, at most."""
GOOD_GAIN, GOOD_LOSS = 8.0, 5.0
"""Points above its control and below the classifier that a good student has, at least and at most."""


@dataclass(frozen=True)
class Built:
    """What came out."""

    folder: Path
    rows: list[dict[str, Any]]
    """CLS, the student's bundle and its control on the test split: `name`, `n`, `accuracy`, `macro_f1` and
    `rationale_ratio`, and the accuracy's 95 % Wilson `interval`; of the bundle also `size_bytes` and `milliseconds`."""
    verdict: str
    """Whether the student has learnt, in a sentence."""
    learnt: bool


def build(
    spec: str,
    output: Path,
    *,
    backbone: str | None = None,
    quick: bool = False,
    hours: float | None = None,
    settings: dict[str, Any] | None = None,
    confirm: Callable[[str], None] = say,
) -> Built:
    """Train an explainable classifier on one's own data and export it.

    Everything that is done stands in `grid.yaml`, which `rekd-edge sweep` repeats, and each run's folder holds its
    settings. A call that was stopped goes on when it is repeated.

    Args:
        spec: the data SPEC.
        output: a new folder, or an earlier call's.
        backbone: a pretrained encoder; a small one from the Hub if not given.
        quick: take about a quarter of an hour rather than two.
        hours: how long it may take, about.
        settings: of the data, such as `{"text_column": "body"}`.
        confirm: told what was found and what is planned, before it starts.

    Returns:
        Figures on the test split, and a verdict.

    Raises:
        InputError: the data cannot be used; the folder holds something else, or was begun with other data or settings.
        FailureError: a training failed.
    """
    check_place(output)
    if quick and hours is not None:
        raise InputError("--quick and --hours exclude each other; give one of them.")

    given = DataSettings(**(settings or {}))
    data = load_data(spec, given)
    facts = look_at(data)
    for sentence in facts.sentences():
        confirm(sentence)

    asked: dict[str, Any] = {
        "data": spec,
        "backbone": backbone or BACKBONES[facts.task],
        "settings": settings or {},
        "content": data.fingerprint,
    }
    with locked(output):
        if (output / GRID).is_file():
            _check_same(output, asked)
            confirm(f"{output} goes on where it was stopped")
        else:
            if output.is_dir() and any(output.iterdir()):
                raise InputError(f"{output} is not empty and was not begun by build; give --output a new folder.")

            budget = hours if hours is not None else QUICK_HOURS if quick else DEFAULT_HOURS
            plan = make_plan(facts, spec, asked["backbone"], budget, settings or {})
            for sentence in (*plan.sentences, f"about {_duration(plan.hours)} and {plan.memory_gib:.1f} GiB of memory"):
                confirm(sentence)

            output.mkdir(parents=True, exist_ok=True)
            write_json(output / SUMMARY, asked)
            write_text(output / GRID, yaml.safe_dump(plan.grid, sort_keys=False, allow_unicode=True))

        if facts.rows["test"] > TEST_ROWS and given.test_limit is None and given.eval_limit is None:
            given = replace(given, test_limit=TEST_ROWS)

        return _make(output, spec, given)


def _make(output: Path, spec: str, settings: DataSettings) -> Built:
    """Train, export, measure and show; what is there already is left as it is."""
    table = run_sweep(load_grid(str(output / GRID)), output / RUNS, EngineSettings("local", 1))
    if table["failed"]:
        raise FailureError(f"A training failed: {table['failed'][0]}; repeat the command to try again.")

    runs = {(row["role"], row["method"]): output / RUNS / "runs" / row["run"] for row in table["rows"]}
    student, classifier = runs["student", "rekd"], runs["student", "cls"]
    if not (output / BUNDLE).is_dir():
        say("exporting the student to int8")
        export_bundle(student, output / BUNDLE, precision="int8")

    rows = _measure(output, spec, settings, student, classifier)
    verdict, learnt = _verdict(output / BUNDLE, student, spec, settings, rows)
    write_report([output / BUNDLE, classifier], spec, output / PAGE, settings)

    return Built(output, rows, verdict, learnt)


def _measure(output: Path, spec: str, settings: DataSettings, student: Path, classifier: Path) -> list[dict[str, Any]]:
    """The classifier that sees everything, the student's bundle, and the control, on the test split."""
    bundle = output / BUNDLE
    bench = run_benchmark(bundle, BenchSettings(cold_starts=0, threads=1))
    rows = []

    for name, path in {
        "CLS (whole input)": classifier,
        "REKD (int8 bundle)": bundle,
        "control (random)": _control(student),
    }.items():
        found = evaluate(path, spec, settings)
        interval = wilson_interval(round(found["accuracy"] * found["n"]), found["n"])
        figures = {key: found[key] for key in ("n", "accuracy", "macro_f1", "rationale_ratio")}
        rows.append({"name": name, **figures, "interval": [interval.low, interval.high]})

    rows[1] |= {"size_bytes": bench["size_bytes"], "milliseconds": bench["latency_ms"]["p50"]}
    return rows


def _verdict(
    bundle: Path, student: Path, spec: str, settings: DataSettings, rows: list[dict[str, Any]]
) -> tuple[str, bool]:
    """Whether the student is better than its control and than the most frequent label, with an interval."""
    import numpy as np

    examples = load_data(spec, settings).split("test")
    systems = [open_system(path) for path in (bundle, _control(student))]
    answers = [system.answer(system.encode(examples.inputs)) for system in systems]
    right = answers[0].logits.argmax(axis=1) == examples.labels
    control = answers[1].logits.argmax(axis=1) == examples.labels[answers[1].rows]
    by_row = np.bincount(answers[1].rows, weights=control) / np.bincount(answers[1].rows)

    gain = paired_difference(right, by_row)
    points = f"{100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    majority = most_frequent(examples.labels)

    if gain.low > 0 and rows[1]["accuracy"] > majority:
        below = 100 * (rows[0]["accuracy"] - rows[1]["accuracy"])
        good = 100 * gain.value >= GOOD_GAIN and below <= GOOD_LOSS
        return (
            f"The student has learnt: {points} above its control on {len(examples):,} test rows, and {below:.1f} "
            "points below the classifier that sees everything."
            + (
                ""
                if good
                else f" A good one is at least {GOOD_GAIN:.0f} above and at most {GOOD_LOSS:.0f} below, so this one is "
                "not good yet: give it more rows or more time (--hours)."
            ),
            True,
        )

    return (
        f"The student has not learnt: {points} against its control on {len(examples):,} test rows, and the most "
        f"frequent label alone gives {majority:.1%}. Give it more rows or more time (--hours), or check the labels.",
        False,
    )


def _control(student: Path) -> Path:
    """The control that counts for a run."""
    from rekd_edge.runs import RunFolder
    from rekd_edge.training.control import counting_control

    found = counting_control(RunFolder(student))
    assert found is not None
    return found.path


def _check_same(output: Path, asked: dict[str, Any]) -> None:
    before = read_json(output / SUMMARY)
    changed = next((name for name in asked if before.get(name) != asked[name]), None)
    if changed is not None:
        raise InputError(f"{output} was begun with another {changed}; give --output a new folder.")


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(60 * hours))} minutes"

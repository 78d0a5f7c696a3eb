"""The whole method family side by side: accuracy at one rationale ratio, parameters, and latency as int8.

    python benchmarks/methods.py digits --seeds 3
    python benchmarks/methods.py imdb --data FOLDER --backbone FOLDER --seeds 3

One RE teacher, and students of one size: CLS, RE, REKD and its ablations, PLMR with and without teacher, RTP, and
students of other architectures. Students of one seed whose predictors and steps are alike share their random-mask
controls, and with them their warm start. Runs are kept in `--work` and resumed from there; accuracy is on the test
split, latency that of the first seed's bundles, all in turn on the same inputs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from _results import in_turn, percentiles, write_results

from rekd_edge import Rationalizer
from rekd_edge.data import DataSettings, load_data
from rekd_edge.evaluate import evaluate
from rekd_edge.export import export_bundle
from rekd_edge.modeling import RationaleModel
from rekd_edge.progress import say
from rekd_edge.runs import RunFolder
from rekd_edge.training.configuration import TrainingConfig, load_config
from rekd_edge.training.control import counting_control
from rekd_edge.training.display import TrainingDisplay
from rekd_edge.training.run import train

FIRST_SEED = 2026
LATENCY_ROWS = 64


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    method: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from the recipe's."""
    family: str = ""
    """Architecture in place of the backbone's own."""
    distils: bool = False
    timed: bool = False
    """Whether its bundle is timed; ablations have the geometry of what they ablate."""

    @property
    def control(self) -> str:
        """The variant that trains the control."""
        return f"{self.family} re".strip()


@dataclass(frozen=True)
class Setting:
    """A data set with the sizes of teacher and students, as (predictor layers, generator layers)."""

    recipe: str
    teacher: tuple[int, int]
    student: tuple[int, int]
    families: tuple[str, ...]
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of a method on this data."""
    teacher_changes: dict[str, Any] = field(default_factory=dict)
    family_changes: dict[str, Any] = field(default_factory=dict)
    """Settings of the other architectures, which have no pretrained layers."""


RTP = {"predictor_epochs": 0, "rtp.lambda_label": 1.0}
PLMR = {"plmr.lambda_continuity": 1.0}  # the paper's 10 is for spans of whole phrases
SETTINGS = {
    "planted": Setting(
        "planted",
        (2, 2),
        (1, 1),
        ("bilstm", "cnn"),
        own={
            "plmr": {**PLMR, "backbone": "random:bert-micro", "layers": 3, "generator_layers": 2, "epochs": 4},
            "rtp": {**RTP, "epochs": 10, "rtp.warmup_epochs": 2, "head_learning_rate": 1e-2},
        },
        teacher_changes={"epochs": 8},
    ),
    "digits": Setting(
        "digits",
        (2, 2),
        (1, 1),
        ("resnet",),
        own={"plmr": {**PLMR, "backbone": "random:vit-micro", "layers": 3, "generator_layers": 2}},
        teacher_changes={"epochs": 24},
    ),
    "imdb": Setting(
        "imdb-small",
        (4, 2),
        (2, 1),
        ("bilstm", "cnn"),
        own={
            "plmr": {**PLMR, "layers": 4, "generator_layers": 2},
            "rtp": {**RTP, "epochs": 5, "rtp.warmup_epochs": 1, "head_learning_rate": 3e-3},
        },
        family_changes={"learning_rate": 1e-3},
    ),
    "cifar10": Setting("cifar10-small", (6, 4), (3, 2), ("resnet",)),
}

AS_PAPER: dict[str, Any] = {"kd_temperature": None, "teacher_mask": "own"}
"""How the paper distils, whatever the recipe."""
ABLATIONS: dict[str, dict[str, Any]] = {
    "rekd": {},
    "rekd, KD alone (α = 0)": {"alpha": 0.0},
    "rekd, rationale alone": {"distil": "rationale"},
    "rekd, prediction alone": {"distil": "prediction"},
    "rekd, fixed τ = 1": {"kd_temperature": 1.0},
    "rekd, hard teacher labels": {"teacher_labels": "hard"},
    "rekd, α from 0 to 1": {"alpha": 0.0, "alpha_end": 1.0},
    "rekd, shared noise": {"gumbel_noise": "shared"},
    "rekd, student's mask": {"teacher_mask": "student"},
}


def variants(setting: Setting) -> dict[str, Variant]:
    """Every row, what others need first."""
    rows = {"cls": Variant("cls", timed=True), "re": Variant("re", timed=True)}
    for name, changes in ABLATIONS.items():
        rows[name] = Variant("rekd", AS_PAPER | changes, distils=True, timed=name == "rekd")

    for method in ("plmr", "rtp"):
        if method in setting.own:
            changes = setting.own[method]
            rows[method] = Variant(method, changes, timed=True)
            rows[f"{method}, distilled"] = Variant(method, changes, distils=True)

    for family in setting.families:
        zero = {"mask_mode": "zero", **setting.family_changes}  # only attention can leave features out
        rows[f"{family} cls"] = Variant("cls", zero, family)
        rows[f"{family} re"] = Variant("re", zero, family)
        rows[f"{family} rekd"] = Variant("rekd", AS_PAPER | zero, family, distils=True, timed=True)

    return rows


def main() -> None:
    """Train what is missing, measure, and write one row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--data", help="SPEC in place of the recipe's")
    parser.add_argument("--backbone", help="backbone in place of the recipe's")
    parser.add_argument("--teacher", type=Path, help="a finished re run in place of one trained here")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--variants", nargs="*", help="rows by name; all by default")
    parser.add_argument("--test-rows", type=int, default=5000)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--finished", action="store_true", help="train nothing, report the runs that are there")
    parser.add_argument("--repeats", type=int, default=200, help="timed predictions of each bundle; 0 for none")
    given = parser.parse_args()
    setting = SETTINGS[given.setting]
    places = {"data.spec": given.data, "backbone": given.backbone}
    overrides = {key: value for key, value in places.items() if value}
    recipe = load_config(setting.recipe, {**overrides, **dict(item.split("=", 1) for item in given.settings)})
    work = given.work / given.setting

    layers, generator_layers = setting.teacher
    teacher = replace(recipe, layers=layers, generator_layers=generator_layers, **setting.teacher_changes)

    if given.teacher:
        teacher = recipe_of(given.teacher)

    rows = [finished(teacher, given.teacher or work / "teacher", "teacher", "", given.test_rows)]
    for name, variant, config in students(setting, recipe, work, given.teacher or work / "teacher", given.seeds):
        trained = (work / folder_name(name, config.seed) / "metrics.json").is_file()
        if (given.variants is None or name in given.variants) and (trained or not given.finished):
            rows.append(finished(config, work / folder_name(name, config.seed), "student", name, given.test_rows))
            rows[-1]["timed"] = variant.timed and config.seed == FIRST_SEED

    if given.repeats:
        add_latency([row for row in rows if row.get("timed")], recipe, work, given.repeats)

    write_results(f"methods-{given.setting}", rows, summary=summarised(rows))


def students(
    setting: Setting, recipe: TrainingConfig, work: Path, teacher: Path, seeds: int
) -> Iterator[tuple[str, Variant, TrainingConfig]]:
    """Every variant at every seed."""
    layers, generator_layers = setting.student
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for name, variant in variants(setting).items():
            control = folder_name(variant.control, seed)
            changes: dict[str, Any] = {"layers": layers, "generator_layers": generator_layers, **variant.changes}
            changes["teacher"] = str(teacher) if variant.distils else None
            own = name == variant.control or "epochs" in variant.changes  # a control takes as many steps as its run
            changes["control"] = "train" if own else str(work / control)

            if variant.method == "cls" and recipe.warm_start:  # what a warm start costs the others in epochs
                changes |= {"epochs": 2 * (recipe.epochs or 1), "control": None}
            if variant.family:
                changes["backbone"] = f"{variant.family}:{recipe.backbone}"

            yield name, variant, configured(recipe, variant.method, seed, changes)


def recipe_of(run: Path) -> TrainingConfig:
    """The settings that a finished run was asked for."""
    asked = json.loads((run / "training.json").read_text())["asked"]
    data = asked.pop("data")
    return load_config(None, {**asked, **{f"data.{key}": value for key, value in data.items()}})


def configured(recipe: TrainingConfig, method: str, seed: int, changes: dict[str, Any]) -> TrainingConfig:
    """The recipe with a method, whose own settings are named `method.name`."""
    plain = {key: value for key, value in changes.items() if "." not in key}
    config = recipe.with_method(method, seed=seed, **plain)
    own = {key.partition(".")[2]: value for key, value in changes.items() if "." in key}
    return replace(config, options=replace(config.options, **own)) if own else config


def folder_name(variant: str, seed: int) -> str:
    """A variant's name without what file systems dislike, and the seed."""
    words = variant.replace("α", "alpha").replace("τ", "tau").replace("=", "").replace("'", "")
    return "-".join([*"".join(c if c.isalnum() else " " for c in words).split(), str(seed)])


def finished(config: TrainingConfig, folder: Path, role: str, variant: str, test_rows: int) -> dict[str, Any]:
    """Train a run unless it is finished, and measure it and its control on the test split."""
    metrics = train(config, folder, folder.exists(), lambda stage: [TrainingDisplay(f"{folder.name} {stage}")])
    if (folder / "test.json").is_file():
        return json.loads((folder / "test.json").read_text())

    model = RationaleModel.from_pretrained(folder)
    facts, training = model.config, json.loads((folder / "training.json").read_text())
    towers = [tower for tower in (model.predictor, model.generator) if tower is not None]
    tables = {id(w): w.numel() for tower in towers for w in tower.encoder.embedding.parameters()}
    data = replace(config.data, eval_limit=test_rows)
    row = {
        "data": config.spec if config.spec.startswith("builtin:") else Path(config.spec).name,
        "method": config.method,
        "variant": variant,
        "role": role,
        "backbone": config.backbone if config.backbone.startswith("random:") else Path(config.backbone).name,
        "layers": facts.predictor["num_hidden_layers"],
        "generator_layers": facts.generator and facts.generator["num_hidden_layers"],
        "mask_mode": facts.mask_mode if facts.selects else None,
        "target_ratio": facts.target_ratio,
        "seed": config.seed,
        **evaluate(folder, config.spec, data),
        "dev_accuracy": metrics["accuracy"],
        "random_mask_accuracy": None,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "parameters_without_embeddings": sum(w.numel() for w in model.parameters()) - sum(tables.values()),
        "seconds": training["seconds"],
        "run": folder.name,
    }

    if facts.selects and config.control:
        row["random_mask_accuracy"] = control_accuracy(config, folder, data)

    (folder / "test.json").write_text(json.dumps(row))
    say(json.dumps(row))
    return row


def control_accuracy(config: TrainingConfig, folder: Path, data: DataSettings) -> float:
    """Accuracy of a run's control on the test split; measured once for all runs that share it."""
    control = counting_control(RunFolder(folder))
    assert control is not None
    stored = control.path / "test.json"
    if not stored.is_file():
        stored.write_text(json.dumps(evaluate(control.path, config.spec, data)))
    return json.loads(stored.read_text())["accuracy"]


def add_latency(rows: list[dict[str, Any]], recipe: TrainingConfig, work: Path, repeats: int) -> None:
    """Median milliseconds as int8, one thread, batch 1, all in turn on the same inputs."""
    inputs = load_data(recipe.spec, replace(recipe.data, eval_limit=LATENCY_ROWS)).split("test").inputs
    runs = []

    for row in rows:
        bundle = work / f"{row['run']}-int8"
        shutil.rmtree(bundle, ignore_errors=True)
        manifest = export_bundle(work / row["run"], bundle, "int8")
        row |= {f"int8_{name}": manifest["quantization"][name] for name in ("mask_agreement", "label_agreement")}
        row["int8_bytes"] = manifest["files"]["model.onnx"]["size"]
        rationalizer = Rationalizer.load(bundle, threads=1)
        rationalizer(inputs[0])
        runs.append(lambda turn, use=rationalizer: use(inputs[turn % len(inputs)]))

    for row, seconds in zip(rows, in_turn(runs, repeats), strict=True):
        row |= percentiles(seconds)


def summarised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds, one entry a variant, and what REKD variants have over RE."""
    students = [row for row in rows if row["role"] == "student"]
    groups = {
        name: [r for r in students if r["variant"] == name] for name in dict.fromkeys(r["variant"] for r in students)
    }
    summary = []

    for name, group in groups.items():
        accuracy = [row["accuracy"] for row in group]
        entry: dict[str, Any] = {"variant": name, "seeds": len(group), "accuracy": statistics.mean(accuracy)}
        entry["std"] = statistics.stdev(accuracy) if len(group) > 1 else None

        for key in ("rationale_ratio", "rationale_f1", "rationale_accuracy", "random_mask_accuracy"):
            values = [row[key] for row in group if row.get(key) is not None]
            entry |= {key: statistics.mean(values)} if values else {}

        entry |= {key: group[0][key] for key in ("parameters", "parameters_without_embeddings")}
        base = groups.get(next((v for v in ("bilstm re", "cnn re", "resnet re") if v.split()[0] in name), "re"), [])
        if name != "cls" and len(base) == len(group) and "cls" not in name:
            gains = [ours["accuracy"] - theirs["accuracy"] for ours, theirs in zip(group, base, strict=True)]
            entry |= {"over_re": statistics.mean(gains), "gains": gains}

        entry |= {key: row[key] for row in group for key in ("p50_ms", "int8_bytes") if key in row}
        summary.append(entry)

    return summary


if __name__ == "__main__":
    sys.exit(main())

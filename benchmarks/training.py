"""The training step compared with a plain loop written from the paper, on the same device and the same examples.

    python benchmarks/training.py imdb --data FOLDER --backbone FOLDER
    python benchmarks/training.py cifar10 --data FOLDER --backbone FOLDER --image-size 224
    python benchmarks/training.py accuracy
    python benchmarks/training.py accuracy --data FOLDER --backbone FOLDER --teacher RUN
    python benchmarks/training.py allocator --data FOLDER --backbone FOLDER

The plain loop trains in fp32, pads texts to the longest that the recipe allows, runs the teacher and reads the loss
back in every step, resizes images one by one, and uses torch's default AdamW and the attention that transformers
chooses. Modules and equations are the same, so only the loop differs. The two loops alternate step by step in one
process, and each sees every example once, after a warm-up of one epoch on a GPU and one plain step on a CPU. Teacher
targets are computed anew for each row and timed separately; `amortised` spreads them over the paper's 35 epochs. Peak
memory is measured in separate processes (on a CPU if /proc reports it).

`allocator` measures RE on IMDB in alternating processes that return freed memory to the system, as all processes above
do, or keep it (`keep_freed_memory`). `accuracy` trains REKD students with and without what makes a step fast (bf16,
batches of similar length): on planted reviews, or on IMDB with a teacher from the grid `small-table3`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from _results import write_results
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from rekd_edge.data import load_data
from rekd_edge.evaluate import evaluate
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.masking import padding_bias
from rekd_edge.progress import say
from rekd_edge.runs.layout import TARGETS
from rekd_edge.sweep.grid import load_grid
from rekd_edge.training import losses
from rekd_edge.training.configuration import TrainingConfig, load_config
from rekd_edge.training.preparation import Preprocessing, build_model, model_config, prepare_preprocessing
from rekd_edge.training.run import train
from rekd_edge.training.trainer import RationaleTrainer

EPOCHS = 35
"""The paper's; the teacher's pass is spread over so many."""
LAYERS = {"imdb": (6, (3, 2, 1)), "cifar10": (12, (6, 4, 3))}
"""Layers of the teacher and of its students."""
PAPER = {"count_all_positions": False, "control": None, "allow_weak_teacher": True, "epochs": 1, "early_stopping": None}
"""The paper's recipe without what is no part of a step; padding never counts as a feature, here as there."""
KEEPS = "rekd_edge.training.run.keep_freed_memory"
ALONE = 96
"""Examples that a loop in a process of its own sees."""


def main() -> None:
    """Measure and write `results/training-DATA.json`."""
    given = arguments()
    if given.teacher and not (given.data and given.backbone):
        raise SystemExit("Give --data and --backbone beside --teacher.")

    if given.recipe == "accuracy":
        write_results(*accuracies(given))
        return

    if not (given.data and given.backbone):
        raise SystemExit("Give --data and --backbone.")

    if given.alone:
        print(json.dumps(alone(given)))
        return

    if given.recipe == "allocator":
        write_results("training-allocator", allocators(given))
        return

    rows = []
    with tempfile.TemporaryDirectory() as folder, patch(KEEPS):
        given.work = Path(folder)
        depth, students = LAYERS[given.recipe]
        rows.append(compared(given, "re", depth, None))
        teacher = short_teacher(given, depth)

        for layers in given.layers or students:
            rows.append(compared(given, "rekd", layers, teacher))

        length = "data.max_length" if given.recipe == "imdb" else "data.image_size"
        shape = {"batch_size": given.batch_sizes, length: given.lengths}
        for name, values in shape.items():
            for value in values:
                change = {name: value}
                reads = teacher if name == "batch_size" else short_teacher(given, depth, change)
                rows.append(compared(given, "rekd", students[-1], reads, change))

    write_results(f"training-{given.recipe}", rows)


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=[*sorted(LAYERS), "accuracy", "allocator"])
    parser.add_argument("--data")
    parser.add_argument("--backbone")
    parser.add_argument("--teacher", type=Path, help="of the students whose accuracy is compared on IMDB")
    parser.add_argument("--examples", type=int, default=320, help="seen once by each loop")
    parser.add_argument("--layers", type=int, nargs="*", help="of the students")
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[], help="of the smallest student")
    parser.add_argument("--lengths", type=int, nargs="*", default=[], help="tokens or pixels of the smallest student")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # a process of its own: JSON of one row's settings

    return parser.parse_args()


def accuracies(given: argparse.Namespace) -> tuple[str, list[dict[str, Any]]]:
    """Test accuracy of students trained with the fast and the plain step, and the name of the results."""
    rows = []
    with tempfile.TemporaryDirectory() as work:
        teacher = given.teacher or Path(work) / "teacher"
        if given.teacher is None:
            name, recipe, own = "planted", "planted", {"layers": 1}
            train(load_config("planted", {"method": "re", "layers": 2, "epochs": 8}), teacher)
        else:
            grid = load_grid("small-table3", {"data.spec": given.data, "backbone": given.backbone})
            name, recipe, own = "imdb", grid.recipe, grid.rows["tiny"].methods["rekd"]

        for seed in range(2026, 2029):
            for variant, precision in (("fast", "bf16"), ("plain", "fp32")):
                more = {"method": "rekd", "teacher": str(teacher), "seed": seed, "precision": precision}
                folder, config = Path(work) / f"{variant}-{seed}", load_config(recipe, {**own, **more})

                with nullcontext() if variant == "fast" else plainly():
                    train(config, folder)

                found = evaluate(folder, config.spec, config.data, "test")
                kept = {key: found[key] for key in ("accuracy", "rationale_ratio")}
                rows.append({"data": name, "method": "rekd", "variant": variant, "seed": seed, **kept})
                say(f"{variant} {seed}: {found['accuracy']:.3f}")

    return "training-accuracy" + ("-imdb" if given.teacher else ""), rows


@contextmanager
def plainly() -> Iterator[None]:
    """Train on randomly ordered batches, padded to the longest text that the recipe allows."""
    collator = Preprocessing.collator
    with (
        patch.object(RationaleTrainer, "_get_train_sampler", Trainer._get_train_sampler),
        patch.object(Preprocessing, "collator", lambda self, **_: collator(self, pad_to_max_length=True)),
    ):
        yield


def settings(given: argparse.Namespace, method: str, layers: int, teacher: Path | None, **more: Any) -> TrainingConfig:
    """The paper's recipe with this number of layers in both towers."""
    own = {"data.augment": False, "data.image_size": given.image_size} if given.recipe == "cifar10" else {}
    return load_config(
        f"{given.recipe}-paper",
        {
            **PAPER,
            "method": method,
            "data.spec": given.data,
            "backbone": given.backbone,
            "layers": layers,
            "generator_layers": layers,
            "teacher": None if teacher is None else str(teacher),
            "data.train_limit": given.examples,
            "data.eval_limit": 8,
            **own,
            **more,
        },
    )


def short_teacher(given: argparse.Namespace, layers: int, more: dict[str, Any] | None = None) -> Path:
    """A teacher of the right size, barely trained: its quality does not change the time of a step."""
    folder = given.work / "-".join(["teacher", *map(str, (more or {}).values())])
    train(settings(given, "re", layers, None, **{"data.train_limit": 40, "batch_size": 8, **(more or {})}), folder)
    return folder


def compared(
    given: argparse.Namespace, method: str, layers: int, teacher: Path | None, more: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One row: seconds per step of both loops, alternating over the same examples."""
    more = more or {}
    config = settings(given, method, layers, teacher, **more)
    config = replace(config, epochs=2 if torch.cuda.is_available() else 1)
    plain = PlainLoop(config, teacher)
    plain.step(1.0)  # warms up
    turns = InTurn(plain)
    name = f"{method}-{layers}-" + "-".join(map(str, more.values()))
    shutil.rmtree(given.work / TARGETS, ignore_errors=True)
    started = time.perf_counter()
    train(config, given.work / name, callbacks=lambda stage: [turns])
    steps = len(turns.seconds) // (config.epochs or 1)  # of the last epoch
    ours, theirs = turns.seconds[-steps:], plain.seconds[-steps:]
    targets = max(0.0, turns.began - started) if teacher else 0.0  # includes loading, so it is an upper bound
    ratio = sum(theirs) / sum(ours)
    spread = sum(ours) + targets / EPOCHS
    row = {
        "data": given.recipe,
        "method": method,
        "role": "student" if teacher else "teacher",
        "layers": layers,
        "batch_size": config.batch_size,
        "length": config.data.max_length if given.recipe == "imdb" else config.data.image_size,
        "steps": len(ours),
        "ours_step_s": statistics.median(ours),
        "plain_step_s": statistics.median(theirs),
        "ours_samples_per_s": config.batch_size * len(ours) / sum(ours),
        "plain_samples_per_s": config.batch_size * len(theirs) / sum(theirs),
        "speedup": ratio,
        "speedup_amortised": sum(theirs) / spread,
        "before_first_step_s": targets,
    }

    if not given.no_memory:
        for system in ("ours", "plain"):
            row[f"{system}_peak_mb"] = in_own_process(given, system, method, layers, teacher, more)["peak_mb"]

    say(f"{name}: {ratio:.2f} times as fast, {row['speedup_amortised']:.2f} with the teacher's pass")
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


class PlainLoop:
    """A training loop written directly from the paper's equations 1 to 11."""

    def __init__(self, config: TrainingConfig, teacher: Path | None) -> None:
        torch.manual_seed(config.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        data = load_data(config.spec, config.data)
        self.config = config = config.resolved(data.task)
        preprocessing = prepare_preprocessing(config, data, [])
        facts = model_config(config, data, preprocessing)
        self.student = build_model(config, facts, preprocessing.tokenizer).to(self.device).train()
        self.teacher = None if teacher is None else RationaleModel.from_pretrained(teacher).to(self.device)

        self.features = preprocessing.features(data.split("train"))
        if hasattr(self.features, "_cached"):
            self.features._cached = None  # each image is decoded and resized when it is needed

        self.collate = preprocessing.collator(pad_to_max_length=data.task == "text")
        self.optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay or 0.0
        )
        self.batches = self.shuffled()
        self.seconds: list[float] = []

    def shuffled(self) -> Iterator[list[int]]:
        """Indices of the batches, epoch after epoch."""
        while True:
            yield from torch.randperm(len(self.features)).split(self.config.batch_size)  # type: ignore[misc]

    def step(self, temperature: float) -> float:
        """One optimisation step; its loss."""
        started = time.perf_counter()
        batch = self.collate([self.features[int(index)] for index in next(self.batches)])
        batch = {name: values.to(self.device) for name, values in batch.items()}
        loss = self.loss(batch, temperature)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        value = loss.item()
        self.seconds.append(time.perf_counter() - started)

        return value

    def loss(self, batch: dict[str, Tensor], temperature: float) -> Tensor:
        """Equation 6, or 11 where there is a teacher."""
        config, student = self.config, self.student
        inputs, attention_mask = batch.get("input_ids", batch.get("pixel_values")), batch.get("attention_mask")
        assert inputs is not None
        assert student.generator is not None
        feature, special = student.feature_positions(inputs, attention_mask)
        bias = padding_bias(attention_mask)
        z = student.generator(inputs, bias)
        log_s = torch.log_softmax((z + gumbel(z)) / temperature, dim=-1)
        s = log_s.exp()[..., 1]
        hard = (s > 0.5).float() * feature
        mask = hard + (s - s.detach()) * feature
        q = student.predictor(inputs, mask + special.float(), bias)
        count = feature.sum(dim=1)
        selection = (mask.sum(dim=1) - count * config.target_ratio).square().mean()
        loss = nn.functional.cross_entropy(q, batch["labels"]) + config.lambda_select * selection

        if self.teacher is None:
            return loss

        with torch.no_grad():
            z_teacher = self.teacher.generator(inputs, bias)
            own = (z_teacher[..., 1] > z_teacher[..., 0]).float() * feature
            q_teacher = self.teacher.predictor(inputs, own + special.float(), bias)
            log_s_teacher = torch.log_softmax((z_teacher + gumbel(z_teacher)) / temperature, dim=-1)

        rationale = losses.rationale_distillation_loss(log_s_teacher, log_s, feature)
        softened = torch.log_softmax(q_teacher / temperature, dim=-1)
        prediction = losses.prediction_distillation_loss(softened, q, temperature)

        return losses.rekd_loss(loss, rationale, prediction, temperature, config.alpha, config.lambda_r)


def gumbel(like: Tensor) -> Tensor:
    """G of equation 1."""
    return -torch.log(-torch.log(torch.rand_like(like).clamp(1e-20, 1 - 1e-7)))


class InTurn(TrainerCallback):
    """Runs a step of the plain loop after each of ours, which is timed from the end of the other."""

    def __init__(self, plain: PlainLoop | None) -> None:
        self.plain = plain
        self.seconds: list[float] = []
        self.began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock, so that the first batch's loading counts."""
        self.began = self._mark = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step is over when the device is done with it."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()

        self.seconds.append(time.perf_counter() - self._mark)
        if self.plain is not None:
            progress = state.global_step / state.max_steps
            self.plain.step(5.0 * (0.1 / 5.0) ** progress)

        self._mark = time.perf_counter()


def allocators(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Step time and peak memory of RE runs of two sizes that keep or return freed memory, three runs each."""
    given.recipe = "imdb"
    rows = []

    for layers in (3, 1):
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "keeps": []}
        for _ in range(3):
            for system, found in runs.items():
                found.append(in_own_process(given, system, "re", layers, None, {}))

        row: dict[str, Any] = {"data": "imdb", "method": "re", "layers": layers}
        for system, name in (("keeps", "kept"), ("ours", "given_back")):
            for value in ("step_s", "peak_mb"):
                row[f"{name}_{value}"] = round(statistics.median(run[value] for run in runs[system]), 4)

        row["speedup"] = round(row["given_back_step_s"] / row["kept_step_s"], 4)
        rows.append(row)
        say(f"{layers} layers: {row['speedup']:.2f} times as fast with freed memory kept")

    return rows


def in_own_process(
    given: argparse.Namespace, system: str, method: str, layers: int, teacher: Path | None, more: dict[str, Any]
) -> dict[str, float]:
    """The measurements of `alone`, from a separate process."""
    wanted = {"system": system, "method": method, "layers": layers, "teacher": teacher and str(teacher), "more": more}
    command = [sys.executable, __file__, given.recipe, "--data", given.data, "--backbone", given.backbone]
    command += ["--image-size", str(given.image_size), "--examples", str(ALONE), "--alone", json.dumps(wanted)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(answer.stdout.strip().splitlines()[-1])
    return found


def alone(given: argparse.Namespace) -> dict[str, float]:
    """Run an epoch of one loop (`plain`, `ours`, or ours that `keeps` freed memory) in a separate process.

    Returns:
        `step_s`, the median seconds of a step, and `peak_mb` of the GPU, or of the process without one.
    """
    wanted = json.loads(given.alone)
    teacher = None if wanted["teacher"] is None else Path(wanted["teacher"])
    config = settings(given, wanted["method"], wanted["layers"], teacher, **wanted["more"])

    if wanted["system"] == "plain":
        loop = PlainLoop(config, teacher)
        for _ in range(3):
            loop.step(1.0)
        seconds = loop.seconds
    else:
        turns = InTurn(None)
        with (
            tempfile.TemporaryDirectory() as folder,
            nullcontext() if wanted["system"] == "keeps" else patch(KEEPS),
        ):
            train(config, Path(folder) / "run", callbacks=lambda stage: [turns])

        seconds = turns.seconds

    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:  # getrusage's maximum would begin with that of the caller
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak = int(status["VmHWM"].split()[0]) / 1024

    return {"step_s": statistics.median(seconds), "peak_mb": peak}


if __name__ == "__main__":
    main()

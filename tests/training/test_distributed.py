"""Two processes end with the weights that one has: same batches, same noise, one mean over all examples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import rekd_edge
from rekd_edge.training.configuration import load_config
from rekd_edge.training.processes import rows_of
from rekd_edge.training.run import train

COMMON: dict[str, Any] = {
    "layers": 1,
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "temperature_refresh": 1,
    "head_dropout": 0.0,  # processes drop out different things
    "precision": "fp32",
    "data.train_limit": 75,  # a last batch of 11
    "data.eval_limit": 20,
}
PRUNED = {"backbone": "random:bert-micro", "layers": 4, "generator_layers": 3}
TEXT = {**COMMON, "backbone": "random:bert-nano", "data.spec": "builtin:planted", "data.max_length": 48}
IMAGE = {**COMMON, "backbone": "random:vit-nano", "data.spec": "builtin:digits", "data.augment": True}
EVERYTHING = {"gradient_accumulation": 2, "warm_start": True, "predictor_epochs": 1, "lambda_contiguity": 0.1}
RUNS: dict[str, dict[str, Any]] = {
    "re": {**TEXT, "method": "re", **EVERYTHING, "selection_loss": "batch_mean"},
    # no more steps than the controls of "re" were trained for
    "rekd": {
        **TEXT,
        "method": "rekd",
        "teacher": "re",
        "allow_weak_teacher": True,
        "control": "re",
        "gradient_accumulation": 2,
    },
    # asked in every step, and a last batch of one example
    "student-mask": {
        **TEXT,
        "method": "rekd",
        "teacher": "re",
        "allow_weak_teacher": True,
        "control": None,
        "teacher_mask": "student",
        "mask_mode": "drop",
        "gradient_accumulation": 2,
        "data.train_limit": 65,
    },
    "plmr": {**TEXT, "method": "plmr", **PRUNED, "control": None},
    "rtp": {**TEXT, "method": "rtp", "rtp.warmup_epochs": 1, "control": None},
    "image": {**IMAGE, "method": "re", "control": None},
}
REFUSED = {**TEXT, "method": "cls", "batch_size": 15}
COMMAND = {key: value for key, value in TEXT.items() if key != "temperature_refresh"}  # of no effect on cls
COMMAND |= {"epochs": 1, "data.train_limit": 32}
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = (
    *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "-m", "rekd_edge"),
)
"""Its launcher of processes for GPUs, which starts them where there is none too."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The folders of every run, trained by `one` process and by `two`; of two, `re` and `image` are interrupted."""
    folder = tmp_path_factory.mktemp("distributed")
    teacher = str(folder / "one" / "re")
    cases = []
    for name, settings in RUNS.items():
        given = {key: teacher if value == "re" and key != "method" else value for key, value in settings.items()}
        train(load_config(None, given), folder / "one" / name)
        cases.append({"settings": given, "output": str(folder / "two" / name), "interrupted": name in ("re", "image")})
    cases.append({"settings": REFUSED, "output": str(folder / "two" / "refused")})
    cases.append({"arguments": command_line(folder / "two" / "command")})
    (folder / "cases.json").write_text(json.dumps(cases))
    said = launch(*TORCHRUN, str(Path(__file__).with_name("launched.py")), str(folder / "cases.json"))
    (folder / "two" / "command.said").write_text(said)
    return lambda processes, name: folder / processes / name


def command_line(output: Path) -> list[str]:
    sets = [part for key, value in COMMAND.items() for part in ("--set", f"{key}={value}")]
    return ["train", "--method", "cls", *sets, "--output", str(output)]


def launch(*command: str) -> str:
    source = str(Path(rekd_edge.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_end_with_the_weights_of_one(
    name: str, runs: Callable[[str, str], Path], assert_trained_alike: Callable[[Path, Path], None]
) -> None:
    one, two = runs("one", name), runs("two", name)
    assert {path.relative_to(one) for path in one.rglob("*")} == {path.relative_to(two) for path in two.rglob("*")}
    for part in ("", *(path.name for path in one.glob("control*"))):
        assert_trained_alike(one / part, two / part)
        records = [json.loads((each / part / "training.json").read_text()) for each in (one, two)]
        assert [record["processes"] for record in records] == [1, 2]


@pytest.mark.slow
def test_batch_that_cannot_be_shared_is_refused(runs: Callable[[str, str], Path]) -> None:
    said = runs("two", "refused").with_suffix(".refused").read_text()
    assert said == "batch_size=15 cannot be shared by 2 processes; take a multiple."
    assert not runs("two", "refused").exists()


@pytest.mark.slow
def test_command_line_speaks_once(runs: Callable[[str, str], Path]) -> None:
    assert runs("two", "command.said").read_text().count("cls: epoch 1 ") == 1
    assert json.loads((runs("two", "command") / "training.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_accelerate_launches_it_too(runs: Callable[[str, str], Path], tmp_path: Path) -> None:
    assert launch(*ACCELERATE, *command_line(tmp_path / "run")).count("cls: epoch 1 ") == 1
    assert json.loads((tmp_path / "run" / "training.json").read_text())["processes"] == 2
    ours, theirs = (load_file(each / "model.safetensors") for each in (tmp_path / "run", runs("two", "command")))
    assert all(bool((theirs[name] == weight).all()) for name, weight in ours.items())


def test_package_is_a_module_that_a_launcher_can_start() -> None:
    done = subprocess.run([sys.executable, "-m", "rekd_edge", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == rekd_edge.__version__


@pytest.mark.parametrize(("size", "processes"), [(16, 2), (11, 2), (11, 4), (3, 4), (1, 2)])
def test_rows_of_a_batch_count_alike_in_the_mean_over_processes(size: int, processes: int) -> None:
    counted = [0.0] * size
    for process in range(processes):
        rows = rows_of(size, processes, process)
        weight = 1.0 if size < processes else len(rows) * processes / size
        for row in rows:  # weight of a row in its process's mean, and of the process in the mean over all
            counted[row] += weight / len(rows) / processes
    assert counted == pytest.approx([1 / size] * size)

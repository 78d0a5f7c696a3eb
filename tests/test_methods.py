"""Every method from training to explained int8 predictions, and the guide to adding one, word for word."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from rekd_edge import Rationalizer
from rekd_edge.data import DataSettings, load_data
from rekd_edge.evaluate import evaluate
from rekd_edge.export import export_bundle
from rekd_edge.methods import METHODS, Method
from rekd_edge.runtime.benchmark import BenchSettings, run_benchmark
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train

GUIDE = Path(__file__).parents[1] / "docs" / "adding-a-method.md"
COMMON = {"layers": 1, "epochs": 2, "learning_rate": 2e-3, "temperature_refresh": 1, "target_ratio": 0.2}
TASKS = {
    "text": {"data.spec": "builtin:planted", "backbone": "random:bert-micro", "data.max_length": 48},
    "image": {"data.spec": "builtin:digits", "backbone": "random:vit-micro"},
}
OWN = {"plmr": {"layers": 4, "generator_layers": 3}, "rtp": {"rtp.warmup_epochs": 1}}
"""What a method needs on so small a run: layers to split, an epoch after the warm-up."""
LIMITS = {"data.train_limit": 96, "data.eval_limit": 64}
PUBLIC = [name for name, method in METHODS.items() if method.public]


@pytest.fixture(scope="module")
def teacher(make_once: Callable[..., Path]) -> Callable[[str], str]:
    """An `re` run with its control."""

    def teach(task: str) -> str:
        config = load_config(None, {**COMMON, **TASKS[task], **LIMITS, "method": "re"})
        return str(make_once(f"methods/{task}-teacher", lambda run: train(config, run)))

    return teach


def from_training_to_prediction(task: str, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train, export to int8, predict, evaluate and bench; the run's figures on 64 test rows."""
    given = {**COMMON, **TASKS[task], **LIMITS, "control": None, "allow_weak_teacher": True, **settings}
    config = load_config(None, given)
    run, bundle = folder / "run", folder / "int8"
    metrics = train(config, run)
    selects = METHODS[config.method].selects
    assert metrics["rationale_ratio"] == pytest.approx(0.2 if selects else 1.0, abs=0.04)
    manifest = export_bundle(run, bundle, precision="int8")
    assert manifest["verified"]
    assert manifest["method"] == config.method
    assert manifest["parity"]["mask_differences"] == 0
    assert manifest["parity"]["largest_logit_difference"] <= 1e-4
    assert manifest["invariance"]["mask_differences"] == manifest["invariance"]["label_differences"] == 0

    data = DataSettings(eval_limit=64, max_length=48)
    inputs = load_data(TASKS[task]["data.spec"], data).split("test").inputs
    predictions = Rationalizer.load(bundle, threads=1)([inputs[i] for i in range(8)])
    for prediction in predictions:
        mask = np.array(prediction.mask)
        assert mask.any()
        assert json.loads(json.dumps(prediction.to_dict()))["rationale_ratio"] == pytest.approx(mask.mean())
    on_run = evaluate(run, TASKS[task]["data.spec"], data)
    on_bundle = evaluate(bundle, TASKS[task]["data.spec"], data)
    assert on_bundle["n"] == on_run["n"] == 64
    assert on_bundle["accuracy"] == pytest.approx(
        on_run["accuracy"], abs=0.2
    )  # so little trained, many rows are undecided
    assert on_bundle["rationale_ratio"] == pytest.approx(on_run["rationale_ratio"], abs=0.02)
    report = run_benchmark(bundle, BenchSettings(threads=1, repeats=3, cold_starts=1))
    assert report["latency_ms"]["p50"] > 0
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == [io["name"] for io in manifest["graph"]["outputs"]]
    return on_run


FAST = [("rekd", "text", "drop"), ("re", "image", "drop")]
"""The others of these cases are among the slow tests."""
CASES = [
    pytest.param(
        task, name, mode, id=f"{name}-{task}-{mode}", marks=[] if (name, task, mode) in FAST else [pytest.mark.slow]
    )
    for name in PUBLIC
    for task in METHODS[name].tasks
    for mode in (("zero", "drop") if (name, task) == ("rekd", "text") else ("drop",))
]


@pytest.mark.parametrize(("task", "name", "mode"), CASES)
def test_every_method_goes_from_training_to_prediction(
    task: str, name: str, mode: str, teacher: Callable[[str], str], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"method": name, "mask_mode": mode, **OWN.get(name, {})}
    if METHODS[name].teacher != "never" and METHODS[name].selects:
        settings["teacher"] = teacher(task)
    from_training_to_prediction(task, settings, tmp_path)


@pytest.fixture
def guided(monkeypatch: pytest.MonkeyPatch) -> Method:
    """The method of the guide, from its code blocks."""
    model, objective, entry = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    for name, code in (("rekd_edge.modeling.lead", model), ("rekd_edge.training.objectives.lead", objective)):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, name, "exec"), module.__dict__)
    method = eval(f"{{{entry}}}", {"Method": Method})["lead"]
    monkeypatch.setitem(METHODS, "lead", method)
    return method


@pytest.mark.parametrize("task", ["text", pytest.param("image", marks=pytest.mark.slow)])
def test_the_guide_adds_a_method(guided: Method, task: str, tmp_path: Path) -> None:
    assert guided.tasks == ("text", "image")
    from_training_to_prediction(task, {"method": "lead"}, tmp_path)
    if task == "text":
        prediction = Rationalizer.load(tmp_path / "int8")("One two three four five six seven eight nine ten")
        selected = sum(prediction.mask)
        assert 0 < selected < len(prediction.mask)
        assert prediction.mask == [1] * selected + [0] * (len(prediction.mask) - selected)  # the first ones


def test_guide_and_registry_name_the_same_hooks() -> None:
    from rekd_edge.modeling import RationaleModel

    named = re.findall(r"^\| `(\w+)`", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(named) >= 6
    assert all(hasattr(RationaleModel, name) for name in named)

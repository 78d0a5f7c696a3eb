"""What `plmr` refuses, its calibration, and whole runs of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import TrainerCallback

from rekd_edge import Rationalizer
from rekd_edge.data import DataSettings, load_data
from rekd_edge.errors import InputError
from rekd_edge.evaluate import evaluate
from rekd_edge.export import export_bundle
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.plmr import PLMRModel, kept_shares
from rekd_edge.training.calibration import calibrated_bias
from rekd_edge.training.configuration import TrainingConfig, load_config
from rekd_edge.training.inference import batches, predict
from rekd_edge.training.objectives import Moment
from rekd_edge.training.objectives.plmr import (
    prepare,
)
from rekd_edge.training.preparation import build_model, model_config, prepare_preprocessing
from rekd_edge.training.run import train

MOMENT = Moment(temperature=2.0, progress=0.5)
GEOMETRY = {
    "hidden_size": 32,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TINY = {
    "method": "plmr",
    "generator_layers": 3,
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "control": None,
    "data.train_limit": 64,
    "data.eval_limit": 40,
}


@pytest.fixture(scope="session")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainingConfig]:
    """A tiny run's settings, on an encoder of five layers; dots in names are written as two underscores."""
    folder = tmp_path_factory.mktemp("backbones")
    kinds: dict[str, dict[str, Any]] = {
        "text": {"model_type": "bert"},
        "image": {"model_type": "vit", "image_size": 8, "patch_size": 1},
    }
    for task, kind in kinds.items():
        (folder / task).mkdir()
        (folder / task / "config.json").write_text(json.dumps({**GEOMETRY, **kind}))
    data = {
        "text": {"data.spec": "builtin:planted", "data.max_length": 48},
        "image": {"data.spec": "builtin:digits"},
    }

    def make(task: str, **changes: Any) -> TrainingConfig:
        own = {name.replace("__", "."): value for name, value in changes.items()}
        return load_config(None, {**TINY, **data[task], "backbone": str(folder / task), **own})

    return make


@pytest.fixture(scope="session")
def plmr_runs(make_once: Callable[..., Path], configured: Callable[..., TrainingConfig]) -> Callable[..., Path]:
    """A finished tiny run of a task and mask mode."""

    def run(task: str, mask_mode: str) -> Path:
        config = configured(task, mask_mode=mask_mode)
        return make_once(f"plmr/{task}-{mask_mode}", lambda output: train(config, output))

    return run


def begun(config: TrainingConfig) -> tuple[PLMRModel, TrainingConfig, Any, Any]:
    """A model as its run begins with it, with the resolved settings, the preprocessing and the data."""
    data = load_data(config.spec, config.data)
    config = config.resolved(data.task)
    preprocessing = prepare_preprocessing(config, data, [])
    facts = model_config(config, data, preprocessing)
    config = prepare(config, data, preprocessing)
    torch.manual_seed(0)
    model = build_model(config, facts, preprocessing.tokenizer)
    assert isinstance(model, PLMRModel)
    return model, config, preprocessing, data


def test_a_missing_split_is_chosen_and_recorded(
    configured: Callable[..., TrainingConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured("text", generator_layers=None, epochs=1)
    train(config, tmp_path / "run")
    recipe = json.loads((tmp_path / "run" / "training.json").read_text())["recipe"]
    assert f": {recipe['generator_layers']} layers select" in " ".join(capsys.readouterr().err.split())
    model = RationaleModel.from_pretrained(tmp_path / "run")
    assert len(model.generator.encoder.layer_stack()) == recipe["generator_layers"]
    assert train(config, tmp_path / "run", resume=True)["n"] == 40


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count_all_positions": True}, "set count_all_positions=false"),
        ({"lambda_contiguity": 0.1}, "plmr.lambda_continuity instead"),
        ({"freeze_embeddings": "generator"}, "Shared embeddings cannot be frozen"),
        ({"generator_layers": 5}, "generator_layers must be between 2 and 4"),
        ({"layers": 2, "generator_layers": None}, "at least 3 layers"),
        ({"plmr__full_layers": 3}, "plmr.full_layers must be between 1 and 2"),
    ],
)
def test_what_the_method_cannot_do_is_refused(
    changes: dict[str, Any], words: str, configured: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        train(configured("text", **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("gap", "squared", "must be one of hinge, signed, absolute"),
        ("zeroed", "words", "plmr.zeroed must be one of hidden_states, features"),
        ("denominators", "all", "plmr.denominators must be one of features, positions"),
        ("temperature", 0.0, "must be a number above 0"),
        ("lambda_sparsity", -1.0, "must be a number of at least 0"),
        ("gap_weight", float("nan"), "must be a number of at least 0"),
        ("unknown", 1, "Unknown setting 'plmr.unknown'"),
    ],
)
def test_settings_are_checked(name: str, value: Any, words: str, configured: Callable[..., TrainingConfig]) -> None:
    with pytest.raises(InputError, match=words):
        configured("text", **{f"plmr__{name}": value})


@pytest.mark.parametrize("mask_mode", ["zero", "drop"])
def test_calibration_reaches_the_target_and_keeps_to_the_schedule(
    mask_mode: str, configured: Callable[..., TrainingConfig]
) -> None:
    model, _, preprocessing, data = begun(
        configured("text", mask_mode=mask_mode, target_ratio=0.3, plmr__full_layers=1, generator_layers=4)
    )
    loader = batches(preprocessing.features(data.split("train")), preprocessing.collator(), 16)
    masks = predict(model.eval(), loader, calibrate=True).masks
    assert np.mean([mask.mean() for mask in masks]) == pytest.approx(0.3, abs=2e-3)
    alive = [[], []]
    with torch.no_grad():
        for batch in loader:
            selection = model.select(batch["input_ids"], batch["attention_mask"])
            for step in (1, 2):
                left = (selection.outlived >= step) & selection.feature
                alive[step - 1] += (left.sum(dim=1) / selection.feature.sum(dim=1)).tolist()
    shares = kept_shares(0.3, 3).tolist()
    assert [np.mean(each) for each in alive] == pytest.approx(shares[:2], rel=0.05)


@given(st.integers(0, 10**6), st.floats(0.2, 0.8), st.integers(2, 40))
def test_slack_widens_the_gap_around_the_threshold(seed: int, target: float, examples: int) -> None:
    random = np.random.default_rng(seed)
    margins = [random.normal(size=random.integers(1, 20)).astype(np.float32) for _ in range(examples)]
    every = np.concatenate(margins)

    def ratio_and_distance(bias: float) -> tuple[float, float]:
        moved = [(row + bias > 0) | ((row == row.max()) & (row.max() + bias <= 0)) for row in margins]
        return float(np.mean([row.mean() for row in moved])), float(np.abs(every + bias).min())

    closest, close = ratio_and_distance(calibrated_bias(margins, target))
    chosen, wide = ratio_and_distance(calibrated_bias(margins, target, slack=0.05))
    assert abs(chosen - target) <= max(0.05, abs(closest - target)) + 1e-6
    if abs(closest - target) <= 0.05 and closest > np.mean([1 / len(row) for row in margins]) + 1e-6:
        assert wide >= close - 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("task", ["text", "image"])
def test_a_run_trains_exports_predicts_and_evaluates(task: str, plmr_runs: Callable[..., Path], tmp_path: Path) -> None:
    """With `mask_mode: zero`; with `drop` it is among the tests of every method."""
    run = plmr_runs(task, "zero")
    metrics = json.loads((run / "metrics.json").read_text())
    target = {"text": 0.1, "image": 0.15}[task]
    assert metrics["rationale_ratio"] == pytest.approx(target, abs=0.02)
    epochs = json.loads((run / "training.json").read_text())["epochs"]
    assert len(epochs) == 2
    for precision in ("fp32", "int8"):
        manifest = export_bundle(run, tmp_path / precision, precision)
        assert manifest["verified"]
        assert manifest["method"] == "plmr"
        assert manifest["parity"]["mask_differences"] == 0
        assert manifest["parity"]["largest_logit_difference"] <= 1e-4
        assert manifest["invariance"]["mask_differences"] == 0
    spec, settings = {"text": "builtin:planted", "image": "builtin:digits"}[task], DataSettings(eval_limit=40)
    ours, theirs = (evaluate(path, spec, settings) for path in (run, tmp_path / "fp32"))
    assert ours == pytest.approx(theirs)
    example = load_data(spec, settings).split("test").inputs[0]
    prediction = Rationalizer.load(tmp_path / "int8")(example)
    assert prediction.label in manifest["labels"]


def test_resuming_gives_the_same_weights(
    configured: Callable[..., TrainingConfig],
    plmr_runs: Callable[..., Path],
    tmp_path: Path,
) -> None:
    config = configured("text", mask_mode="drop")
    whole = load_file(str(plmr_runs("text", "drop") / "model.safetensors"))

    class Stop(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.epoch and state.epoch >= 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", callbacks=lambda stage: [Stop()])
    assert (tmp_path / "run" / "checkpoints").is_dir()
    train(config, tmp_path / "run", resume=True)
    resumed = load_file(str(tmp_path / "run" / "model.safetensors"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_control_warms_both_halves(configured: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    config = configured("text", mask_mode="drop", control="train", warm_start=True, learning_rate=1e-9, epochs=1)
    metrics = train(config, tmp_path / "run")
    assert 0 <= metrics["random_mask_accuracy"] <= 1
    control = RationaleModel.from_pretrained(tmp_path / "run" / "control")
    model = RationaleModel.from_pretrained(tmp_path / "run")
    stack = control.predictor.encoder.layer_stack()
    assert len(stack) == len(model.predictor.encoder.layer_stack()) == 2
    for place in range(2):
        for ours in (model.predictor, model.generator):
            pairs = zip(ours.encoder.layer_stack()[place].parameters(), stack[place].parameters(), strict=True)
            assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
    table = control.predictor.encoder.embedding.weight
    assert torch.allclose(model.generator.encoder.embedding.weight, table, atol=1e-6)


@pytest.mark.parametrize("mask", ["own", "student"])
def test_a_plmr_learns_from_a_rationalist_and_teaches_one(
    mask: str, configured: Callable[..., TrainingConfig], plmr_runs: Callable[..., Path], tmp_path: Path
) -> None:
    train(configured("text", method="re", layers=1, generator_layers=1, epochs=1), tmp_path / "re")
    common = {"allow_weak_teacher": True, "epochs": 1, "teacher_mask": mask}
    student = configured("text", teacher=str(tmp_path / "re"), predictor_epochs=1, **common)
    metrics = train(student, tmp_path / "student")
    assert np.isfinite(metrics["loss"])
    second = configured(
        "text", method="rekd", layers=1, generator_layers=1, teacher=str(tmp_path / "student"), **common
    )
    assert np.isfinite(train(second, tmp_path / "second")["loss"])

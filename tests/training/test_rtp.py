"""RTP's objective around a model, its calibration, and whole runs on the built-in data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback

from rekd_edge.errors import InputError
from rekd_edge.evaluate import evaluate
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.rtp import RTPModel, class_scores
from rekd_edge.training.configuration import TrainingConfig, load_config
from rekd_edge.training.inference import batches, predict
from rekd_edge.training.objectives import Context, Moment, rtp
from rekd_edge.training.run import train

QUICK = {"epochs": 3, "rtp__warmup_epochs": 1, "control": None, "target_ratio": 0.2}


def softmax(values: np.ndarray) -> np.ndarray:
    exponential = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def array(values: Tensor) -> np.ndarray:
    return values.detach().double().numpy()


@pytest.fixture
def scene(settings: Callable, prepared: Callable, first_batch: Callable) -> tuple[RTPModel, dict, Context]:
    """A model in training, a batch of 8 and a context, half of the epochs warm-up."""
    config = settings("text", "rtp", epochs=4, rtp__warmup_epochs=2, lambda_contiguity=0.2, head_dropout=0.0)
    model, preprocessing, data = prepared(config)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    context = Context(config.resolved("text"), "text", tuple(data.label_names), preprocessing.max_length)
    return model.train(), first_batch(preprocessing, data), context


def test_the_loss_is_the_weighted_sum(scene: tuple[RTPModel, dict, Context]) -> None:
    model, batch, context = scene
    terms = rtp.objective(model, batch, Moment(1.0, 0.9), context)
    labels = batch["labels"]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    output = model(**inputs, explained=labels)
    task = -np.log(softmax(array(output.logits)))[range(8), labels].mean()
    rationale = -np.log(sigmoid(array(output.rationale_logits)))[range(8), labels].mean()
    chance = softmax(array(output.complement_logits))[range(8), labels] - 0.5
    scores, feature = class_scores(output.selection), output.selection.feature
    regulariser = rtp.regulariser(scores, output.selection.sigma, feature, labels, rtp.Settings()).item()
    own = array(scores)[range(8), :, labels]
    both = array(feature)[:, 1:] * array(feature)[:, :-1]
    contiguity = (np.abs(np.diff(own, axis=1)) * both).sum() / both.sum()
    loss = task + 2.5 * rationale + 2.5 * np.maximum(0, chance).mean() + 1.5 * regulariser + 0.2 * contiguity
    assert terms["loss"].item() == pytest.approx(loss, rel=1e-5)


def test_a_teacher_is_followed_by_the_mask_of_the_label(scene: tuple[RTPModel, dict, Context]) -> None:
    model, batch, context = scene
    context = replace(context, config=replace(context.config, alpha=0.3, lambda_r=0.5))
    batch, labels = dict(batch), batch["labels"]
    width, random = batch["input_ids"].shape[1], torch.Generator().manual_seed(0)
    z = batch["teacher_selection_logits"] = torch.randn(8, width, 1, 2, generator=random)
    q = batch["teacher_logits"] = torch.randn(8, 1, 2, generator=random)
    batch["teacher_mask"] = torch.zeros(8, width, 1, dtype=torch.bool)
    terms = {name: term.item() for name, term in rtp.objective(model, batch, Moment(1.7, 0.0), context).items()}
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    own = sigmoid(array(output.selection.evidence)[range(8), :, labels])  # [batch, features]
    ours, theirs = np.stack([1 - own, own], -1), softmax(array(z)[:, :, 0])
    divergence = (theirs * np.log(theirs / ours)).sum(axis=-1) * array(output.selection.feature)
    assert terms["kd_rationale"] == pytest.approx(divergence.sum(axis=1).mean(), rel=1e-4)
    ours, theirs = softmax(array(output.logits) / 1.7), softmax(array(q)[:, 0] / 1.7)
    prediction = (theirs * np.log(theirs / ours)).sum(axis=1).mean()
    assert terms["kd_prediction"] == pytest.approx(prediction, rel=1e-4)
    expected = 0.3 * terms["task"] + 0.7 * (0.5 * divergence.sum(axis=1).mean() + 1.7**2 * prediction)
    assert terms["loss"] == pytest.approx(expected, rel=1e-4)


def nearest_ratio(evidence: list[np.ndarray], target: float) -> float:
    """The mean ratio closest to the target that any bias gives, by trying all."""
    every = np.unique(np.concatenate(evidence))
    cuts = [every[0] - 1, *((every[1:] + every[:-1]) / 2), every[-1] + 1]
    ratios = [np.mean([max((row > cut).sum(), 1) / len(row) for row in evidence]) for cut in cuts]
    return min(ratios, key=lambda ratio: abs(ratio - target))


@pytest.mark.parametrize("class_ratios", [None, {"neg": 0.4, "pos": 0.1}])
def test_every_class_is_calibrated_on_the_texts_given_its_label(
    class_ratios: dict | None, settings: Callable, prepared: Callable
) -> None:
    model, preprocessing, data = prepared(settings("text", "rtp", target_ratio=0.25, class_ratios=class_ratios))
    with torch.no_grad():
        model.token_head.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
        # half of the texts to each label
        loader = list(batches(preprocessing.features(data.split("validation")), preprocessing.collator(), 8))
        logits = torch.from_numpy(predict(model, loader).logits)
        model.predictor.classifier[1].bias -= logits.mean(dim=0)
    found = predict(model, loader, calibrate=True)
    predicted = found.logits.argmax(axis=1)
    assert 3 < predicted.sum() < len(predicted) - 3
    biases = model.config.options["class_biases"]
    for label, name in enumerate(("neg", "pos")):
        rows = np.flatnonzero(predicted == label)
        target = (class_ratios or {"neg": 0.25, "pos": 0.25})[name]
        ratio = np.mean([found.masks[row].mean() for row in rows])
        evidence = [found.margins[row] - np.float32(biases[label]) for row in rows]
        assert ratio == pytest.approx(nearest_ratio(evidence, target), abs=1e-6)
    assert found.rationale_logits is not None
    assert found.rationale_logits.shape == found.logits.shape


def test_a_class_never_predicted_gets_the_bias_of_all(settings: Callable, prepared: Callable) -> None:
    model, preprocessing, data = prepared(settings("text", "rtp"))
    with torch.no_grad():
        model.predictor.classifier[1].bias[1] = 1e4
    loader = list(batches(preprocessing.features(data.split("validation")), preprocessing.collator(), 8))
    predict(model, loader, calibrate=True)
    config = model.config
    assert config.options["class_biases"] == [config.margin_bias, config.margin_bias]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 3}, r"epochs=4 or more \(rationales are learnt after 3 of warm-up\)"),
        ({"epochs": 9, "predictor_epochs": 1}, "predictor_epochs=0"),
        ({"rtp.sigma": "both"}, "rtp.sigma must be one of sender, receiver"),
        ({"rtp.rationale_loss": "hinge"}, "rtp.rationale_loss must be one of log_sigmoid, cross_entropy"),
        ({"rtp.smoothness": "max"}, "rtp.smoothness must be one of sum, mean"),
        ({"rtp.lambda_label": -1.0}, "rtp.lambda_label must be a number of at least 0"),
        ({"rtp.warmup_epochs": -1}, "rtp.warmup_epochs must be a whole number from 0"),
        ({"rtp.freeze_class_head": "maybe"}, "rtp.freeze_class_head must be true or false"),
        ({"data.spec": "builtin:digits", "backbone": "random:vit-nano"}, "rtp reads text, builtin:digits is image"),
        ({"teacher": "nowhere"}, "The teacher nowhere does not exist"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(
    changes: dict[str, Any], words: str, settings: Callable, tmp_path: Path
) -> None:
    given_settings = {name.replace(".", "__"): value for name, value in changes.items()}
    with pytest.raises(InputError, match=words):
        train(settings("text", "rtp", **given_settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_are_a_section_of_a_recipe() -> None:
    config = load_config("planted", {"method": "rtp", "rtp.sigma": "receiver", "rtp.lambda_label": "1"})
    assert (config.options.sigma, config.options.lambda_label, config.options.lambda_others) == ("receiver", 1.0, 0.05)
    again = config.to_dict()
    assert again["rtp"]["sigma"] == "receiver"
    assert load_config(None, {"rtp.sigma": "receiver"}).options is None  # another method's section is only checked


class InterruptAfter(TrainerCallback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.best: str | None = None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.best = state.best_model_checkpoint
        if round(state.epoch) == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def quick_run(settings: Callable, make_once: Callable[..., Path]) -> Path:
    return make_once("rtp-quick", lambda run: train(settings("text", "rtp", **QUICK), run))


def test_a_run_measures_labels_and_what_rationales_alone_are_worth(quick_run: Path) -> None:
    metrics = json.loads((quick_run / "metrics.json").read_text())
    assert metrics["loss"] == pytest.approx(metrics["task_loss"] + metrics["rationale_loss"])
    report = evaluate(quick_run, "builtin:planted", split="validation", limit=50)
    assert 0 <= report["rationale_accuracy"] <= 1
    assert {"accuracy", "rationale_ratio", "rationale_f1"} <= report.keys()
    model = RationaleModel.from_pretrained(quick_run)
    assert isinstance(model, RTPModel)
    assert len(model.class_biases) == 2
    assert model.generator is None
    assert not (quick_run / "control").exists()


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_interrupted_run_resumes_to_the_same_weights(
    epoch: int, quick_run: Path, settings: Callable, tmp_path: Path
) -> None:
    config, output = settings("text", "rtp", **QUICK), tmp_path / "run"
    interrupt = InterruptAfter(epoch)
    with pytest.raises(KeyboardInterrupt):
        train(config, output, callbacks=lambda _: [interrupt])
    assert (interrupt.best is None) == (epoch == 1)  # the warm-up, of which nothing may be chosen
    train(config, output, resume=True)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (output, quick_run))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert (output / "config.json").read_text() == (quick_run / "config.json").read_text()


def test_a_warm_start_takes_the_controls_classifier(settings: Callable, tmp_path: Path) -> None:
    config: TrainingConfig = settings("text", "rtp", **{**QUICK, "control": "train"}, warm_start=True, control_epochs=1)
    metrics = train(config, tmp_path / "run")
    assert "random_mask_accuracy" in metrics


def test_rtp_learns_from_a_rationalist_and_teaches_one(
    runs: Callable[..., Path], quick_run: Path, settings: Callable, tmp_path: Path
) -> None:
    weak = {"allow_weak_teacher": True, "control": None}
    distilled = settings("text", "rtp", **{**QUICK, **weak}, teacher=str(runs("text", "re")))
    train(distilled, tmp_path / "student")
    alone = train(settings("text", "rtp", **{**QUICK, **weak}), tmp_path / "alone")
    assert json.loads((tmp_path / "student" / "metrics.json").read_text())["loss"] != alone["loss"]
    assert json.loads((tmp_path / "student" / "config.json").read_text())["method"] == "rtp"
    metrics = train(settings("text", "rekd", **weak, teacher=str(quick_run)), tmp_path / "taught")
    assert np.isfinite(metrics["loss"])

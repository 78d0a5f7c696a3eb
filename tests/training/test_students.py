"""A transformer's rationales distilled into nets of other families, from training to a prediction without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rekd_edge import Rationalizer
from rekd_edge.export import export_bundle
from rekd_edge.modeling import RationaleModel
from rekd_edge.training.run import train

DONORS = {"text": "random:bert-nano", "image": "random:vit-nano"}
every_student = pytest.mark.parametrize(
    ("task", "family"), [("text", "bilstm"), ("text", "cnn"), ("image", "resnet")], ids=lambda value: value
)


@pytest.fixture(scope="module")
def student(
    runs: Callable[..., Path], settings: Callable[..., Any], make_once: Callable[..., Path]
) -> Callable[..., Path]:
    """A student of three predictor layers and one generator layer, warm-started, from the transformer's `re` run."""

    def make(task: str, family: str) -> Path:
        teacher = {"teacher": str(runs(task, "re")), "allow_weak_teacher": True}
        shape = {"backbone": f"{family}:{DONORS[task]}", "layers": 3, "generator_layers": 1, "warm_start": True}
        config = settings(task, "rekd", **teacher, **shape, predictor_epochs=1)
        return make_once(f"students/{family}", lambda run: train(config, run))

    return make


@every_student
def test_a_student_of_another_family_learns_from_a_transformer(task: str, family: str, student: Callable) -> None:
    model = RationaleModel.from_pretrained(student(task, family))
    assert model.config.predictor["model_type"] == model.config.generator["model_type"] == f"rekd-{family}"
    assert len(model.predictor.encoder.layer_stack()) == 3
    assert len(model.generator.encoder.layer_stack()) == 1


@every_student
def test_its_bundle_is_verified_and_predicts(task: str, family: str, student: Callable, tmp_path: Path) -> None:
    manifest = export_bundle(student(task, family), tmp_path / "bundle", precision="int8")
    assert manifest["verified"]
    assert manifest["parity"]["inputs"] == "validation"
    assert manifest["parity"]["mask_differences"] == 0
    assert manifest["parity"]["largest_logit_difference"] <= 1e-4
    invariance = manifest["invariance"]
    assert invariance["mask_differences"] == invariance["near_ties"] == invariance["label_differences"] == 0
    assert manifest["quantization"]["mask_agreement"] >= 0.99
    assert ("LSTM" in manifest["quantization"]["scheme"]) == (family == "bilstm")
    rationalizer = Rationalizer.load(tmp_path / "bundle")
    (prediction,) = rationalizer(["A tedious plot."] if task == "text" else [np.full((8, 8, 3), 99, np.uint8)])
    assert prediction.label in manifest["labels"]
    assert np.any(prediction.mask)


@pytest.mark.parametrize("family", ["cnn", pytest.param("bilstm", marks=pytest.mark.slow)])
def test_its_vocabulary_can_be_trimmed(family: str, student: Callable, tmp_path: Path) -> None:
    manifest = export_bundle(student("text", family), tmp_path / "bundle", trim=True)
    assert manifest["verified"]
    assert manifest["vocabulary"]["pieces"] <= manifest["vocabulary"]["of"]


@every_student
def test_frozen_embeddings_stay_and_shared_ones_are_saved_once(
    task: str, family: str, settings: Callable[..., Any], tmp_path: Path
) -> None:
    given = {"backbone": f"{family}:{DONORS[task]}", "share_embeddings": True, "freeze_embeddings": "all"}
    models = []
    for rate in (1e-4, 1e-2):
        train(settings(task, "re", **given, control=None, epochs=1, learning_rate=rate), tmp_path / str(rate))
        models.append(RationaleModel.from_pretrained(tmp_path / str(rate)))
    one, other = (model.checkpoint() for model in models)
    tables = {name for name in one if ".embedding." in name}
    assert {name.split(".")[0] for name in tables} == {"predictor"}
    assert all(torch.equal(one[name], other[name]) for name in tables)
    assert not torch.equal(one["predictor.classifier.1.weight"], other["predictor.classifier.1.weight"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("builtin:digits", "bilstm:random:vit-nano"), "give --backbone resnet:random:vit-nano"),
        (("builtin:planted", "resnet:random:bert-nano"), "give --backbone bilstm:random:bert-nano or"),
        (("builtin:digits", "cnn:random:bert-nano"), "reads text, the data builtin:digits is image"),
        (("builtin:planted", "cnn:random:bert-nano", "--set", "mask_mode=drop"), "set mask_mode=zero"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rekd_edge import cli

    data, backbone, *rest = arguments
    output = ["--output", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["rekd-edge", "train", "--data", data, "--backbone", backbone, *output, *rest])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()

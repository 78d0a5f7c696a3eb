"""RTP bundles: the graph says what the run says, scores included, in every precision."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rekd_edge.evaluate import evaluate
from rekd_edge.export import export_bundle
from rekd_edge.export.graph import export_graph
from rekd_edge.export.parity import Feed, agreement, graph_answers, invariance, torch_answers
from rekd_edge.modeling import RationaleConfig
from rekd_edge.modeling.encoders import encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import load_backbone
from rekd_edge.modeling.rtp import RTPModel
from rekd_edge.runtime import Rationalizer
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train


def make_model(sigma: str, select_words: bool = False) -> RTPModel:
    """One layer, 64 wide, two labels, random weights that decide either way."""
    torch.manual_seed(0)
    encoder = encoder_from_backbone(load_backbone("random:bert-nano", layers=1, max_length=32, vocabulary=200))
    config = RationaleConfig(
        task="text",
        method="rtp",
        labels=["neg", "pos"],
        predictor=encoder.config.to_dict(),
        select_words=select_words,
        max_length=32,
        special_token_ids=[2, 3],
        options={"sigma": sigma, "class_biases": [-0.4, 0.3]},
    )
    model = RTPModel(config, encoder, None)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.15 * torch.randn(weight.shape) + (weight if weight.dim() == 1 else 0))
        if model.starts_word is not None:
            model.starts_word[torch.arange(0, 200, 3)] = False

        model.eval()
        ids = torch.randint(4, 80, (64, 16))
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        model.predictor.classifier[1].bias[0] += (logits[:, 1] - logits[:, 0]).median()  # so that both labels are met

    return model


@pytest.mark.parametrize(
    ("sigma", "words"),
    [
        pytest.param("sender", False, marks=pytest.mark.slow),
        ("receiver", False),
        pytest.param("sender", True, marks=pytest.mark.slow),
    ],
)
def test_the_graph_gives_the_masks_logits_and_scores_of_the_model(
    sigma: str, words: bool, make_feeds: Callable[[str, int], list[Feed]], tmp_path: Path
) -> None:
    model, path, feeds = make_model(sigma, words), tmp_path / "model.onnx", make_feeds("text", 60)
    export_graph(model, path)
    reference, graph = torch_answers(model, feeds), graph_answers(path, feeds)
    assert len(set(reference.logits.argmax(axis=1))) == 2
    found = agreement(reference, graph)
    assert (found.mask_differences, found.label_differences) == (0, 0)
    assert found.largest_logit_difference <= 1e-4
    assert found.largest_score_difference is not None
    assert found.largest_score_difference <= 1e-4
    for feed, scores in zip(feeds, graph.scores or [], strict=True):
        special = np.isin(feed["input_ids"][0], [2, 3])
        assert (scores[special] == 0).all()
        assert ((scores[~special] > 0) & (scores[~special] < 1)).all()
    alone = invariance(path, feeds, 0)
    assert (alone["mask_differences"], alone["label_differences"]) == (0, 0)


def test_scores_that_differ_are_found(make_feeds: Callable[[str, int], list[Feed]]) -> None:
    answers = torch_answers(make_model("sender"), make_feeds("text", 3))
    assert answers.scores is not None
    other = [scores.copy() for scores in answers.scores]
    other[1][1, 0] += 0.25
    moved = type(answers)(answers.logits, answers.margins, answers.masks, other)
    assert agreement(answers, moved).to_dict()["largest_score_difference"] == pytest.approx(0.25)


@pytest.fixture(scope="module")
def trained(make_once: Callable[..., Path]) -> Path:
    """An RTP run on `builtin:planted` that has learnt something."""
    settings = {"method": "rtp", "layers": 1, "data.train_limit": 600, "data.eval_limit": 200, "data.max_length": 64}
    quick = {"epochs": 8, "rtp.warmup_epochs": 3, "learning_rate": 1e-3, "control": None, "warm_start": False}
    config = load_config("planted", {**settings, **quick})
    run = make_once("rtp-trained", lambda folder: train(config, folder))
    assert json.loads((run / "metrics.json").read_text())["accuracy"] > 0.75
    return run


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "int8"])
def test_from_a_run_to_predictions(precision: str, trained: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    manifest = export_bundle(trained, bundle, precision=precision)
    assert manifest["verified"]
    assert manifest["parity"]["mask_differences"] == 0
    assert manifest["parity"]["largest_score_difference"] <= 1e-4
    assert (manifest["invariance"]["mask_differences"], manifest["invariance"]["label_differences"]) == (0, 0)
    assert manifest["graph"]["outputs"][-1] == {
        "name": "rationale_scores",
        "dtype": "float32",
        "shape": ["batch", "features", "classes"],
    }
    options = json.loads((trained / "config.json").read_text())["options"]
    expected = [1 / (1 + np.exp(bias)) for bias in options["class_biases"]]
    assert manifest["class_thresholds"] == pytest.approx(expected)
    card = (bundle / "README.md").read_text()
    assert "Decides from the whole text" in card
    assert "not the only thing that the decision could read" in card
    assert "Accuracy on dev data from the rationale alone" in card
    prediction = Rationalizer.load(bundle)("A superb and gripping film with a dull, clumsy end.")
    assert prediction.class_rationales is not None
    assert prediction.class_rationales[prediction.label]["rationale"] == prediction.rationale
    ours = evaluate(bundle, "builtin:planted", limit=100)
    theirs = evaluate(trained, "builtin:planted", limit=100)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-6 if precision == "fp32" else 0.05), name


@pytest.mark.slow
def test_a_trimmed_vocabulary_changes_nothing(trained: Path, tmp_path: Path) -> None:
    manifest = export_bundle(trained, tmp_path / "bundle", trim=True)
    assert manifest["verified"]
    assert "rationale_accuracy" in evaluate(tmp_path / "bundle", "builtin:planted", limit=50)

"""`evaluate` on tiny runs: the figures, put together again from the model, and its errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rekd_edge.data import DataSettings, load_data
from rekd_edge.errors import InputError
from rekd_edge.evaluate import evaluate
from rekd_edge.modeling import RationaleModel
from rekd_edge.runtime.text import encode_texts, load_tokenizer
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train


@pytest.fixture(scope="module")
def run(make_once: Callable[..., Path]) -> Path:
    """Planted text; controls stand in the folders `control-descent` and `control-fixed`."""
    overrides = {"data.spec": "builtin:planted", "backbone": "random:bert-nano", "layers": 1, "epochs": 1}
    overrides |= {"data.train_limit": 32, "data.eval_limit": 16, "data.max_length": 40, "batch_size": 16}
    config = load_config(None, {**overrides, "target_ratio": 0.2})
    return make_once("evaluated", lambda folder: train(config, folder))


def test_figures_of_a_run_are_those_of_its_model_on_each_text(run: Path) -> None:
    report = evaluate(run, "builtin:planted", limit=20)
    examples = load_data("builtin:planted", DataSettings(eval_limit=20)).split("test")
    model = RationaleModel.from_pretrained(run)
    tokenizer = load_tokenizer(run / "tokenizer.json", 40)
    right, ratios, hits, chosen, true = 0, [], 0, 0, 0
    for i in range(20):
        text = encode_texts(tokenizer, [examples.inputs[i]])[0]
        with torch.no_grad():
            output = model(torch.tensor([text.ids]), torch.ones(1, len(text.ids), dtype=torch.long))
        right += int(output.logits.argmax() == examples.labels[i])
        mask = output.mask[0].numpy()
        ratios.append(mask.sum() / sum(text.feature))
        for selected, (start, end), feature in zip(mask, text.offsets, text.feature, strict=True):
            is_cue = feature and any(start < e and end > s for s, e in examples.rationale_spans[i])
            hits, chosen, true = hits + (selected and is_cue), chosen + selected, true + is_cue
    assert report["n"] == 20
    assert report["accuracy"] == pytest.approx(right / 20)
    assert report["rationale_ratio"] == pytest.approx(np.mean(ratios))
    assert report["rationale_precision"] == pytest.approx(hits / chosen)
    assert report["rationale_recall"] == pytest.approx(hits / true)
    assert report["rationale_f1"] == pytest.approx(2 * hits / (chosen + true))
    assert 0 <= report["macro_f1"] <= 1


@pytest.mark.parametrize("split", ["train", "val", "validation", "test"])
def test_limit_holds_on_every_split(run: Path, split: str) -> None:
    assert evaluate(run, "builtin:planted", split=split, limit=6)["n"] == 6


def test_control_is_measured_without_rationale_figures(run: Path) -> None:
    report = evaluate(run / "control-fixed", "builtin:planted", limit=10)
    assert report["n"] == 10
    assert "rationale_f1" not in report
    assert 0.15 < report["rationale_ratio"] < 0.25


def test_what_is_neither_run_nor_bundle_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="neither a run nor a bundle"):
            evaluate(path, "builtin:planted")


def test_data_of_another_kind_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reads text, the data is image"):
        evaluate(run, "builtin:digits")
    rows = [{"text": f"story {i}", "label": ["bad", "good", "mixed"][i % 3]} for i in range(12)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"knows 2 labels .* the data has 3"):
        evaluate(run, str(tmp_path))


def test_missing_split_names_those_that_exist(run: Path) -> None:
    with pytest.raises(InputError, match="train, validation, test"):
        evaluate(run, "builtin:planted", split="dev2")

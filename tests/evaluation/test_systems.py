"""Runs and bundles asked about a part of the input: the predictor's own answer, and nothing of the rest in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from rekd_edge.data import DataSettings, load_data
from rekd_edge.data.eraser import words_of
from rekd_edge.errors import InputError
from rekd_edge.evaluate import evaluate
from rekd_edge.evaluation import brier_score, faithfulness, probabilities
from rekd_edge.evaluation.words import windows_of
from rekd_edge.export.replay import predictor_graph
from rekd_edge.systems import ImageRows, TextRows, open_system
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train

BUNDLES = Path(__file__).parents[1] / "vectors" / "bundles"
TEXTS = ["a wonderful film with a dull plot and a superb end", "bad " * 12, "x", ""]
PLANTED = {"data.spec": "builtin:planted", "backbone": "random:bert-nano", "layers": 1, "epochs": 1}
SMALL = {"data.train_limit": 32, "data.eval_limit": 16, "data.max_length": 40, "batch_size": 16, "target_ratio": 0.2}


def inputs(name: str) -> list[object]:
    if name.startswith("text"):
        return list(TEXTS)
    return [np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8) for i in range(3)]


@pytest.fixture(scope="module")
def run(make_once: Callable[..., Path]) -> Path:
    return make_once("evaluated", lambda folder: train(load_config(None, {**PLANTED, **SMALL}), folder))


@pytest.mark.parametrize("name", ["text-fp32", "text-int8", "image-fp32", "image-int8"])
def test_a_bundles_predictor_says_the_same_of_the_rationale_alone(name: str) -> None:
    system = open_system(BUNDLES / name)
    rows = system.encode(inputs(name))
    answers = system.answer(rows)
    np.testing.assert_array_equal(system.classify(rows, answers.masks), answers.logits)

    # whatever the unselected features hold
    rest = [~mask for mask in answers.masks]
    for changed in (rows.blanked(rest), rows.scrambled(rest, np.random.default_rng(0))):
        np.testing.assert_array_equal(system.classify(changed, answers.masks), answers.logits)

    # and it does read the selected ones
    assert np.abs(system.classify(rows.blanked(answers.masks), answers.masks) - answers.logits).max() > 0.01


def test_a_runs_predictor_says_the_same_of_the_rationale_alone(run: Path) -> None:
    system = open_system(run)
    rows = system.encode(TEXTS)
    answers = system.answer(rows)
    np.testing.assert_allclose(system.classify(rows, answers.masks), answers.logits, atol=1e-6)
    everything = [np.ones_like(mask) for mask in answers.masks]
    assert np.abs(system.classify(rows, everything)[:2] - answers.logits[:2]).max() > 1e-6
    assert answers.rows.tolist() == [0, 1, 2, 3]


def test_a_control_answers_several_times_and_each_answer_knows_its_row(run: Path) -> None:
    system = open_system(run / "control-descent")
    answers = system.answer(system.encode(TEXTS[:2]))
    assert answers.rows.tolist() == [0, 1, 0, 1, 0, 1]
    assert len(answers.logits) == len(answers.masks) == 6


def test_blanked_and_scrambled_rows_keep_the_rest() -> None:
    system = open_system(BUNDLES / "text-fp32")
    rows = system.encode(TEXTS[:1])
    assert isinstance(rows, TextRows)
    mask = np.zeros(rows.lengths[0], bool)
    mask[[1, 4]] = True
    before = rows.feature_ids(0)
    blank, other = rows.blanked([mask]).feature_ids(0), rows.scrambled([mask], np.random.default_rng(1)).feature_ids(0)
    assert set(blank[mask]) == {rows.blank_id}
    np.testing.assert_array_equal(blank[~mask], before[~mask])
    np.testing.assert_array_equal(other[~mask], before[~mask])
    assert set(other[mask]) <= set(before)


def test_patches_are_changed_in_their_place() -> None:
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    rows = ImageRows(pixels, (2, 2))
    mask = np.array([False, True, False, False])  # above, right
    changed = rows.blanked([mask, ~mask]).pixels
    assert (changed[0, :2, 2:] == 128).all()
    np.testing.assert_array_equal(changed[0, 2:], pixels[0, 2:])
    np.testing.assert_array_equal(changed[1, :2, 2:], pixels[1, :2, 2:])
    assert (changed[1, 2:] == 128).all()


def test_a_graph_that_ignores_its_mask_has_no_predictor_to_cut() -> None:
    model = onnx.load(BUNDLES / "text-fp32" / "model.onnx")
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == "rationale_mask":
                node.input[place] = "input_ids"
    with pytest.raises(InputError, match="decides from the whole input"):
        predictor_graph(model)


def test_faithfulness_of_a_run_asks_its_predictor(run: Path) -> None:
    report = evaluate(run, "builtin:planted", limit=20, faithful=True)
    system = open_system(run)
    rows = system.encode(load_data("builtin:planted", DataSettings(eval_limit=20)).split("test").inputs)
    answers = system.answer(rows)
    expected = faithfulness(lambda masks: probabilities(system.classify(rows, masks)), answers.masks, answers.margins)
    assert {name: report[name] for name in expected} == pytest.approx(expected)


def test_windows_give_one_answer_a_text(run: Path, tmp_path: Path) -> None:
    texts = [" ".join(f"word{i}" for i in range(60)), "short one", ""]
    rows = [{"text": text, "label": label} for text, label in zip(texts, ("neg", "pos", "pos"), strict=True)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    report = evaluate(run, str(tmp_path), windows=True)
    assert report["n"] == 3

    # by hand: windows of the long text, half over one another, and the mean of their probabilities
    system = open_system(run)
    tokenizer = system.tokenizer
    assert tokenizer is not None
    words = words_of(texts[0])
    pieces = np.array([len(tokenizer.encode(texts[0][a:b], add_special_tokens=False)) for a, b in words])
    windows = windows_of(words, pieces, 40 - 2)
    assert len(windows) > 2
    cut = [texts[0][each.start : each.end] for each in windows]
    scores = [
        probabilities(system.answer(system.encode(each)).logits).mean(axis=0) for each in (cut, ["short one"], [""])
    ]
    labels = np.array([0, 1, 1])
    assert report["brier"] == pytest.approx(brier_score(np.stack(scores), labels))


def test_labels_may_differ_in_case_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,label\ngood,POS\nbad,NEG\n")
    assert evaluate(run, str(tmp_path))["n"] == 2
    (tmp_path / "test.csv").write_text("text,label\ngood,P\nbad,N\n")
    with pytest.raises(InputError, match="evaluate on data with the same labels"):
        evaluate(run, str(tmp_path))

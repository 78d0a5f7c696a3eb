"""A rationale for every label: cut from the scores of a bundle that has them, absent elsewhere."""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from rekd_edge.bulk.rows import output_fields, predict_batch
from rekd_edge.cli import main
from rekd_edge.errors import InputError
from rekd_edge.runtime import Rationalizer, TextPrediction
from rekd_edge.runtime.bundle import write_manifest
from rekd_edge.runtime.display import show
from rekd_edge.runtime.rationalizer import class_mask

SCORES = {"good": (0.1, 0.9), "bad": (0.8, 0.2), "film": (0.3, 0.4)}  # (negative, positive); every other token: 0.05
TENSORS = {
    "input_ids": ("int64", ["batch", "sequence"]),
    "attention_mask": ("int64", ["batch", "sequence"]),
    "logits": ("float32", ["batch", "classes"]),
    "rationale_mask": ("bool", ["batch", "features"]),
    "selection_margin": ("float32", ["batch", "features"]),
    "rationale_scores": ("float32", ["batch", "features", "classes"]),
}
LISTED = [{"name": name, "dtype": dtype, "shape": shape} for name, (dtype, shape) in TENSORS.items()]
GRAPH = {"inputs": LISTED[:2], "outputs": LISTED[2:]}


def with_scores(bundle: Path, folder: Path, thresholds: list[float], listed: bool = True) -> Path:
    """A copy of the tiny bundle whose graph also scores its tokens for both labels, by a table."""
    vocabulary = json.loads((bundle / "tokenizer.json").read_text())["model"]["vocab"]
    table = np.full((len(vocabulary), 2), 0.05, np.float32)
    for word, scores in SCORES.items():
        table[vocabulary[word]] = scores
    shutil.copytree(bundle, folder)
    model = onnx.load(folder / "model.onnx")
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    model.graph.node.append(helper.make_node("Gather", ["table", "input_ids"], ["rationale_scores"]))
    model.graph.output.append(
        helper.make_tensor_value_info("rationale_scores", TensorProto.FLOAT, ["batch", "features", 2])
    )
    if listed != "promised":
        onnx.save(model, folder / "model.onnx")
    fields = json.loads((folder / "manifest.json").read_text())
    if listed:
        fields["graph"] = GRAPH
        fields["class_thresholds"] = thresholds
    (folder / "manifest.json").unlink()
    write_manifest(folder, {key: value for key, value in fields.items() if key not in ("schema_version", "files")})
    return folder


@pytest.fixture
def scored(pristine_text_bundle: Path, tmp_path: Path) -> Path:
    return with_scores(pristine_text_bundle, tmp_path / "scored", [0.35, 0.5])


def words(spans: list[Any]) -> list[str]:
    return [span["text"] for span in spans]


def test_every_label_has_its_spans_and_scores(scored: Path) -> None:
    rationalizer = Rationalizer.load(scored, threads=1)
    text = "The good film, a bad film. Good"
    prediction = rationalizer(text)
    assert isinstance(prediction, TextPrediction)
    assert prediction.label == "positive"
    by_class = prediction.to_dict()["class_rationales"]
    assert list(by_class) == ["negative", "positive"]
    assert by_class["positive"]["rationale"] == prediction.rationale  # the graph's own mask, not the threshold's
    assert words(by_class["negative"]["rationale"]) == ["bad"]
    for scores in (by_class[label]["scores"] for label in by_class):
        assert len(scores) == len(prediction.tokens)
    place = prediction.tokens.index("bad")
    assert (by_class["negative"]["scores"][place], by_class["positive"]["scores"][place]) == pytest.approx((0.8, 0.2))


def test_a_batch_has_the_answers_of_its_texts(scored: Path) -> None:
    rationalizer = Rationalizer.load(scored, threads=1)
    texts = ["good", "", "the film the film", "bad " * 9, "a"]
    assert rationalizer(texts) == [rationalizer(text) for text in texts]
    empty = rationalizer("").class_rationales
    assert empty == {label: {"rationale": [], "scores": []} for label in ("negative", "positive")}


def test_rows_of_a_table_hold_them(scored: Path) -> None:
    rationalizer = Rationalizer.load(scored, threads=1)
    batch = pa.RecordBatch.from_pydict({"text": ["the good film, a bad film", ""]})
    schema = output_fields(batch.schema, "text", rationalizer.manifest)
    found = predict_batch(batch, "text", rationalizer, schema, Path()).to_pylist()
    assert [row["class_rationales"] for row in found] == [rationalizer(row["text"]).class_rationales for row in found]


def test_a_label_without_a_score_above_its_threshold_has_its_best_token(scored: Path) -> None:
    prediction = Rationalizer.load(scored, threads=1)("the good the film")
    assert words(prediction.class_rationales["negative"]["rationale"]) == ["film"]


def test_other_bundles_have_no_such_field(pristine_text_bundle: Path, tmp_path: Path) -> None:
    unlisted = with_scores(pristine_text_bundle, tmp_path / "unlisted", [], listed=False)
    for bundle in (pristine_text_bundle, unlisted):
        prediction = Rationalizer.load(bundle, threads=1)("a good film")
        assert prediction.class_rationales is None
        assert "class_rationales" not in prediction.to_dict()
        assert set(prediction.to_dict()) == {
            "label",
            "label_id",
            "scores",
            "rationale",
            "mask",
            "tokens",
            "rationale_ratio",
            "truncated",
        }


def test_a_graph_without_the_scores_that_its_manifest_promises_is_refused(
    pristine_text_bundle: Path, tmp_path: Path
) -> None:
    bundle = with_scores(pristine_text_bundle, tmp_path / "promised", [0.5, 0.5], listed="promised")
    with pytest.raises(InputError, match="does not have the inputs and outputs"):
        Rationalizer.load(bundle)


def test_scores_need_a_threshold_for_every_label(pristine_text_bundle: Path, tmp_path: Path) -> None:
    for name, thresholds in (("few", [0.5]), ("none", [])):
        bundle = with_scores(pristine_text_bundle, tmp_path / name, thresholds)
        with pytest.raises(InputError, match="class_thresholds"):
            Rationalizer.load(bundle)


@given(st.lists(st.floats(0, 1, width=32), max_size=12), st.floats(0, 1))
def test_a_class_mask_is_the_threshold_or_the_first_of_the_best(scores: list[float], threshold: float) -> None:
    mask = class_mask(np.array(scores, np.float32), threshold)
    above = [score > threshold for score in scores]
    if any(above) or not scores:
        assert mask.tolist() == above
        return
    first = scores.index(max(scores))
    assert mask[first]
    assert not mask[:first].any()
    assert {scores[place] for place in np.flatnonzero(mask)} == {max(scores)}
    assert (np.diff(np.flatnonzero(mask)) == 1).all()  # one run: the pieces of one word


def test_the_terminal_shows_what_speaks_for_the_other_labels(scored: Path) -> None:
    text = "the good film, a bad film and good"
    prediction = Rationalizer.load(scored, threads=1)(text)
    for color in (None, "truecolor"):
        file = io.StringIO()
        show(Console(file=file, color_system=color, force_terminal=color is not None, width=100), text, prediction)
        assert "for negative" in file.getvalue().replace("\x1b[2m", "").replace("\x1b[0m", "")
        assert file.getvalue().rstrip().endswith("bad")
    many = {f"label {i}": 0.1 for i in range(9)} | {prediction.label: 0.2}
    by_class = {label: {"rationale": [], "scores": []} for label in many}
    file = io.StringIO()
    show(Console(file=file, width=100), text, replace(prediction, scores=many, class_rationales=by_class))
    assert file.getvalue().count("for label") == 5


def test_the_command_line_prints_them_as_json(
    scored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rekd-edge", "predict", str(scored), "a good film", "--json"])
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert document["class_rationales"]["positive"]["rationale"] == document["rationale"]
    assert len(document["class_rationales"]["negative"]["scores"]) == 3

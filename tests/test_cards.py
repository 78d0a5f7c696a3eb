"""Cards of runs and bundles: metadata that the Hub reads, the measured figures, and commands that fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rekd_edge.cards import bundle_card
from rekd_edge.methods import METHODS


def read(folder: Path) -> tuple[dict[str, Any], str]:
    """The metadata and the text of a folder's card."""
    _, metadata, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(metadata), text


def cells(text: str) -> dict[str, str]:
    """The second column of the card's tables by the first."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and line != "| | |"]
    return dict(rows)


def test_card_of_a_text_bundle(int8_bundle: Path) -> None:
    metadata, text = read(int8_bundle)
    manifest = json.loads((int8_bundle / "manifest.json").read_text())
    result = metadata["model-index"][0]["results"][0]
    assert metadata["pipeline_tag"] == result["task"]["type"] == "text-classification"
    assert (result["dataset"]["name"], result["dataset"]["split"]) == ("builtin:planted", "validation")
    assert result["metrics"] == [{"type": "accuracy", "value": manifest["metrics"]["accuracy"]}]
    assert "base_model" not in metadata  # it began with random weights

    assert "Selects a few words (about 10%), then decides from those alone." in text
    assert 'pip install "rekd-edge"\nrekd-edge predict . "An absolute delight."' in text
    measured = cells(text)
    assert measured["Accuracy on dev data"] == f"{manifest['metrics']['accuracy']:.1%}"
    assert measured["Rationale ratio on dev data"] == f"{manifest['metrics']['rationale_ratio']:.1%}"
    assert (
        measured["Features on which int8 and fp32 masks agree"] == f"{manifest['quantization']['mask_agreement']:.1%}"
    )
    positions = manifest["parity"]["positions"]
    band = manifest["near_ties"]
    near = f"Features within {band['width']:.1e} of a tie, which another runtime may select otherwise"
    assert measured[near] == f"{band['within']} of {band['features']}"
    assert measured["Mask positions that differ from the trained model"] == f"0 of {positions}"


def test_card_of_an_image_bundle(digits_bundle: Path) -> None:
    metadata, text = read(digits_bundle)
    assert metadata["pipeline_tag"] == "image-classification"
    assert 'pip install "rekd-edge[image]"\nrekd-edge predict . photo.png' in text
    assert "Selects a few patches" in text
    assert not any("int8" in name for name in cells(text))


def test_card_of_a_run_and_of_its_control(trained_run: Path) -> None:
    metadata, text = read(trained_run)
    metrics = json.loads((trained_run / "metrics.json").read_text())
    record = json.loads((trained_run / "training.json").read_text())
    assert metadata["tags"] == ["rationale-extraction", "explainability", "re"]
    measured = cells(text)
    assert measured["Accuracy"] == f"{metrics['accuracy']:.1%}"
    control = measured["Accuracy of a predictor on random masks of that ratio"]
    assert control == f"{metrics['random_mask_accuracy']:.1%}"
    assert f"{record['steps']} steps of batches of {record['recipe']['batch_size']}, seed {record['seed']}" in text
    assert "- Data: `builtin:planted` (train 600, validation 200, test 200)\n" in text
    assert "rekd-edge export . --output ../bundle" in text

    metadata, text = read(trained_run / "control-descent")
    assert "control" in metadata["tags"]
    assert "from random words" in text
    assert "rekd-edge export" not in text


@pytest.mark.parametrize(
    ("backbone", "base_model"),
    [
        ("prajjwal1/bert-tiny", "prajjwal1/bert-tiny"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("cnn:prajjwal1/bert-tiny", "prajjwal1/bert-tiny"),
        ("random:bert-nano", None),
        ("bilstm:random:bert-nano", None),
        ("/home/me/models/bert", None),
        ("../models/bert", None),
        ("FOLDER", None),
        (None, None),
    ],
)
def test_base_model_is_a_name_on_the_hub(
    int8_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str | None, base_model: str | None
) -> None:
    (tmp_path / "FOLDER").mkdir()
    monkeypatch.chdir(tmp_path)
    manifest = json.loads((int8_bundle / "manifest.json").read_text())
    card = bundle_card(manifest, {"recipe": {"backbone": backbone, "data": {"spec": "/home/me/reviews.csv"}}})
    assert card.data.base_model == base_model
    assert "/home/me" not in str(card)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.public])
def test_every_method_says_what_it_decides_from(int8_bundle: Path, method: str) -> None:
    manifest = {**json.loads((int8_bundle / "manifest.json").read_text()), "method": method}
    text = bundle_card(manifest, {}).text
    assert ("Decides from all words." in text) == (method == "cls")
    assert ("not the only thing that the decision could read" in text) == (method == "rtp")
    assert ("The rationale is all that the predictor saw." in text) == (method in ("re", "rekd", "plmr"))


def test_failures_and_many_labels(int8_bundle: Path) -> None:
    manifest = json.loads((int8_bundle / "manifest.json").read_text())
    labels = [f"label {i}" for i in range(23)]
    changed = {**manifest, "verified": False, "failures": ["2 mask positions differ", "int8 loses"], "labels": labels}
    text = bundle_card(changed, {}).text
    assert "**This bundle failed its check: 2 mask positions differ; int8 loses.**" in text
    assert "label 19 and 3 more" in text
    assert "label 20" not in text
    assert "failed its check" not in bundle_card(manifest, {}).text

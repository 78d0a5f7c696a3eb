"""What a user may rely on: the graph alone, the fields of a prediction, and what is never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from rekd_edge import Rationalizer
from rekd_edge.runtime import ImagePrediction, TextPrediction

LOWEST = np.finfo(np.float32).min
HEAVY = [
    "pydantic",
    "huggingface_hub",
    "jinja2",
    "torch",
    "transformers",
    "onnx",
    "optimum",
    "datasets",
    "accelerate",
    "safetensors",
    "sklearn",
    "scipy",
    "yaml",
    "pyarrow",
    "ray",
]
TEXTS = {
    "empty": "",
    "spaces": " \t\n ",
    "one word": "delight",
    "one sign": "!",
    "over-long": "a superb scene and a dull actor . " * 100,
    "emoji": "👩‍👩‍👧 loved it 👍🏽!",
    "right to left": "סרט טוב מאוד, באמת",
    "combining": "cafe\u0301 go\u0301od",
    "spelt specials": "[CLS] good [SEP] [PAD] bad [MASK]",
    "control characters": "good\x00 film\x07\u200b",
    "no space": "x" * 5000,
    "lone surrogate": "good \ud800 film",
}


class PlainBundle:
    """A bundle as its card describes it: ONNX Runtime and tokenizers, nothing of this project."""

    def __init__(self, folder: Path) -> None:
        self.settings = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["text"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.settings["max_length"])
        self.tokenizer.encode_special_tokens = True
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])

    def ask(self, texts: list[str], width: int = 1) -> dict[str, NDArray[Any]]:
        """Inputs and outputs of one batch, padded to its longest row or to `width`."""
        rows = [self.tokenizer.encode(text).ids for text in texts]
        ids = np.full((len(rows), max(width, *map(len, rows))), self.settings["pad_token_id"])
        attention = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], attention[i, : len(row)] = row, 1
        feed = {"input_ids": ids, "attention_mask": attention}
        names = ["logits", "rationale_mask", "selection_margin"]
        feature = (attention == 1) & ~np.isin(ids, self.settings["special_token_ids"])
        return {**feed, "feature": feature, **dict(zip(names, self.session.run(names, feed), strict=True))}


@pytest.fixture(scope="module")
def plain(int8_bundle: Path) -> PlainBundle:
    return PlainBundle(int8_bundle)


@pytest.fixture(scope="module")
def texts(int8_bundle: Path) -> Rationalizer:
    return Rationalizer.load(int8_bundle, threads=1)


@pytest.fixture(scope="module")
def images(digits_bundle: Path) -> Rationalizer:
    return Rationalizer.load(digits_bundle, threads=1)


@pytest.mark.parametrize("text", [text for name, text in TEXTS.items() if name != "lone surrogate"])
def test_plain_onnxruntime_gets_the_outputs_of_the_contract(
    plain: PlainBundle, select_by_rule: Callable[..., NDArray[np.bool_]], text: str
) -> None:
    found = plain.ask([text])
    tokens = found["input_ids"].shape[1]
    assert tokens <= plain.settings["max_length"]
    for name, dtype, width in (
        ("logits", np.float32, 2),
        ("rationale_mask", np.bool_, tokens),
        ("selection_margin", np.float32, tokens),
    ):
        assert found[name].dtype == dtype
        assert found[name].shape == (1, width)
    mask, margin, feature = found["rationale_mask"], found["selection_margin"], found["feature"]
    assert np.isfinite(found["logits"]).all()
    assert (margin[~feature] == LOWEST).all()
    np.testing.assert_array_equal(mask, select_by_rule(margin, feature))
    assert mask.any() == feature.any()


def test_rows_of_padding_alone_leave_their_neighbours_alone(plain: PlainBundle) -> None:
    whole = plain.ask(["a superb scene", ""], width=20)
    ids, attention = whole["input_ids"].copy(), whole["attention_mask"].copy()
    attention[1] = 0
    names = ["logits", "rationale_mask", "selection_margin"]
    logits, mask, margin = plain.session.run(names, {"input_ids": ids, "attention_mask": attention})
    assert np.isfinite(logits).all()
    assert not mask[1].any()
    assert (margin[1] == LOWEST).all()
    np.testing.assert_array_equal(logits[0], whole["logits"][0])
    np.testing.assert_array_equal(mask[0], whole["rationale_mask"][0])


def test_a_text_has_one_answer_alone_in_company_and_padded(plain: PlainBundle) -> None:
    given = [text for name, text in TEXTS.items() if name != "lone surrogate"]
    together = plain.ask(given)
    for row, text in enumerate(given):
        for width in (1, 64):
            alone = plain.ask([text], width)
            length = int(alone["attention_mask"].sum())
            np.testing.assert_array_equal(alone["rationale_mask"][0, :length], together["rationale_mask"][row, :length])
            np.testing.assert_array_equal(alone["logits"][0], together["logits"][row])


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_prediction_is_one_json_document_about_the_input(texts: Rationalizer, name: str) -> None:
    check_text_prediction(texts, TEXTS[name])


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text_has_a_prediction(texts: Rationalizer, text: str) -> None:
    check_text_prediction(texts, text)


def check_text_prediction(rationalizer: Rationalizer, text: str) -> None:
    prediction = rationalizer(text)
    assert isinstance(prediction, TextPrediction)
    document = json.loads(json.dumps(prediction.to_dict()))
    keys = {"label", "label_id", "scores", "rationale", "mask", "tokens", "rationale_ratio"}
    assert keys <= set(document)
    assert document["label"] == ["neg", "pos"][document["label_id"]]
    assert document["scores"].keys() == {"neg", "pos"}
    assert sum(document["scores"].values()) == pytest.approx(1)
    assert document["scores"][document["label"]] == max(document["scores"].values())
    assert len(document["mask"]) == len(document["tokens"]) <= 62
    assert set(document["mask"]) <= {0, 1}
    assert not {"[CLS]", "[SEP]", "[PAD]", "[MASK]"} & set(document["tokens"])  # the user's are spelt out as text
    assert bool(sum(document["mask"])) == bool(document["tokens"])  # something is always selected
    assert document["rationale_ratio"] == pytest.approx(sum(document["mask"]) / max(len(document["mask"]), 1))
    for before, span in zip([{"end": 0}, *document["rationale"]], document["rationale"], strict=False):
        assert before["end"] <= span["start"] < span["end"] <= len(text)
        assert span["text"] == text[span["start"] : span["end"]]
    assert document["truncated"] == (len(document["tokens"]) == 62 and rationalizer.encode([text])[0].truncated)


def image_files(folder: Path) -> dict[str, Path]:
    """One scanned digit in many forms, and some odd images."""
    from sklearn.datasets import load_digits

    digit = np.rint(load_digits().images[3] * (255 / 16)).astype(np.uint8)
    grey = Image.fromarray(digit)
    sideways = Image.fromarray(np.rot90(digit).copy())  # turned left; the EXIF tag says: turn right to view
    orientation = Image.Exif()
    orientation[0x0112] = 6
    forms = {
        "grey.png": grey,
        "rgb.png": grey.convert("RGB"),
        "rgba.png": grey.convert("RGBA"),
        "palette.png": grey.convert("P"),
        "sixteen.png": Image.fromarray(digit.astype(np.uint16) * 257),
        "pixel.png": Image.new("RGB", (1, 1), "red"),
        "wide.png": Image.new("L", (3000, 2)),
        "clear.png": Image.new("RGBA", (9, 9), (0, 0, 0, 0)),
        "bits.png": Image.new("1", (5, 7), 1),
    }
    for name, image in forms.items():
        image.save(folder / name)
    sideways.convert("RGB").save(folder / "rotated.png", exif=orientation)
    return {name: folder / name for name in [*forms, "rotated.png"]}


def test_an_image_prediction_is_one_json_document_with_the_patch_grid(images: Rationalizer, tmp_path: Path) -> None:
    files = image_files(tmp_path)
    for name, path in files.items():
        prediction = images(path)
        assert isinstance(prediction, ImagePrediction)
        document = json.loads(json.dumps(prediction.to_dict()))
        assert set(document) == {"label", "label_id", "scores", "mask", "patch_size", "rationale_ratio"}
        mask = np.array(document["mask"])
        assert mask.shape == (8, 8), name
        assert document["patch_size"] == 1
        assert mask.sum() >= 1
        assert document["rationale_ratio"] == pytest.approx(mask.mean())
        assert sum(document["scores"].values()) == pytest.approx(1)
    results = {name: images(path).to_dict() for name, path in files.items()}
    for same in ("rgb.png", "rgba.png", "palette.png", "sixteen.png", "rotated.png"):
        assert results[same] == results["grey.png"], same
    assert images(list(files.values())) == [images(path) for path in files.values()]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def loaded_after(code: str) -> set[str]:
    done = run_python(f"import sys\n{code}\nprint('\\n', *{{name.partition('.')[0] for name in sys.modules}})")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def main_with(*arguments: str) -> str:
    """Code that runs the command line as its entry point does, and outlives it."""
    words = ["rekd-edge", *arguments]
    return f"from rekd_edge.cli import main\nsys.argv = {words!r}\ntry: main()\nexcept SystemExit: pass"


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import rekd_edge, rekd_edge.cli") & {*HEAVY, "PIL"}


TYPERS_OWN = {"pydantic"}  # typer needs it since version 0.29, so the command line has it and Python does not


def test_predicting_loads_nothing_heavy(int8_bundle: Path, digits_bundle: Path, tmp_path: Path) -> None:
    image = image_files(tmp_path)["grey.png"]
    for code in (
        f"from rekd_edge import Rationalizer; Rationalizer.load({str(int8_bundle)!r})('good')",
        f"from rekd_edge import Rationalizer; Rationalizer.load({str(digits_bundle)!r})({str(image)!r})",
    ):
        assert not loaded_after(code) & set(HEAVY), code
    for code in (
        main_with("predict", str(int8_bundle), "a superb scene"),
        main_with("predict", str(digits_bundle), str(image), "--json"),
    ):
        assert not loaded_after(code) & (set(HEAVY) - TYPERS_OWN), code
    assert "PIL" not in loaded_after(main_with("predict", str(int8_bundle), "a superb scene", "--json"))


def test_a_device_needs_no_extra(int8_bundle: Path) -> None:
    """With every extra gone, texts are predicted and bundles inspected; other verbs name what to install."""
    extras = [*(set(HEAVY) - TYPERS_OWN), "PIL"]
    gone = f"import sys\nfor name in {extras!r}: sys.modules[name] = None\nfrom rekd_edge.cli import main\n"
    for arguments, status in (
        (["predict", str(int8_bundle), "good", "--json"], 0),
        (["inspect", str(int8_bundle), "--json"], 0),
        (["export", "run", "--output", "bundle"], 2),
        (["train", "--output", "run"], 2),
    ):
        done = run_python(f"{gone}sys.argv = {['rekd-edge', *arguments]!r}\nmain()")
        assert done.returncode == status, done.stderr
        if status:
            assert 'is not installed; install the extra that has it: pip install "rekd-edge[all]".' in done.stderr
            assert len(done.stderr.splitlines()) == 1
        else:
            json.loads(done.stdout)

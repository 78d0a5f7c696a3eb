"""A model in the box: found by its name after a folder of that name, and put there with a card that says its worth."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rekd_edge import Rationalizer, models
from rekd_edge.cli import app
from rekd_edge.data import DataSettings
from rekd_edge.errors import InputError
from rekd_edge.evaluate import evaluate
from rekd_edge.models import find_bundle
from rekd_edge.models.add import add_model
from rekd_edge.runs import RunFolder
from rekd_edge.runtime.bundle import Manifest
from rekd_edge.training.control import counting_control

VECTORS = Path(__file__).parents[1] / "vectors" / "bundles"
TEXT = "A tedious start, but a superb finale."


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A box that holds `sentiment`; the working folder is another, empty one."""
    box = tmp_path / "box"
    shutil.copytree(VECTORS / "text-int8", box / "sentiment")
    monkeypatch.setattr(models, "BOX", box)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return box


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_name_is_a_path_first_then_a_model_in_the_box(box: Path) -> None:
    assert find_bundle("sentiment") == box / "sentiment"
    shutil.copytree(VECTORS / "text-fp32", "sentiment")
    assert find_bundle("sentiment") == Path("sentiment")
    assert Rationalizer.load("sentiment").manifest.fields["precision"] == "fp32"

    shutil.rmtree("sentiment")
    Path("sentiment").write_text("a file of that name comes first too")
    with pytest.raises(InputError, match="sentiment is not a folder"):
        Rationalizer.load("sentiment")


@pytest.mark.parametrize("name", ["sentimental", "box", "__pycache__", ".."])
def test_a_name_found_nowhere_lists_what_there_is(box: Path, name: str) -> None:
    if Path(name).exists():
        return
    with pytest.raises(InputError, match=f"{name} is not a folder \\(models in the box are: sentiment\\); give"):
        find_bundle(name)
    shutil.rmtree(box / "sentiment")
    with pytest.raises(InputError, match="no model is in the box"):
        find_bundle("sentiment")


def test_every_verb_takes_the_name(box: Path, tmp_path: Path) -> None:
    prediction = json.loads(call("predict", "sentiment", TEXT, "--json"))
    assert prediction == Rationalizer.load(VECTORS / "text-int8")(TEXT).to_dict()
    assert json.loads(call("inspect", "sentiment", "--json"))["labels"] == ["neg", "pos"]
    assert json.loads(call("bench", "sentiment", "--repeats", "2", "--json"))["size_bytes"] > 0
    data = ["--data", "builtin:planted", "--limit", "50"]
    assert json.loads(call("evaluate", "sentiment", *data, "--json"))["n"] == 50
    assert json.loads(call("verify", "sentiment", "--json"))

    log = str(tmp_path / "log.jsonl")
    call("predict", "sentiment", TEXT, "--record", log, "--record-inputs")
    assert json.loads(call("verify-record", log, "--bundle", "sentiment", "--json"))["holds"]


def test_the_page_holds_the_model_in_the_box(box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rekd_edge.web import page

    modules = tmp_path / "node_modules"
    for name in page.VENDOR:
        (modules / name).parent.mkdir(parents=True, exist_ok=True)
        (modules / name).write_text("//")
    page.write_page(Path("sentiment"), tmp_path / "page", None, modules)
    assert (tmp_path / "page" / "bundle" / "model.onnx").read_bytes() == (box / "sentiment" / "model.onnx").read_bytes()


def test_a_base_install_without_network_answers_fast(box: Path) -> None:
    code = f"""
import sys, socket
for name in ("torch", "transformers", "huggingface_hub", "onnx", "datasets"):
    sys.modules[name] = None
socket.socket.connect = None
from pathlib import Path
from rekd_edge import models
models.BOX = Path({str(box)!r})
sys.argv = ["rekd-edge", "predict", "sentiment", {TEXT!r}]
from rekd_edge.cli import main
main()
"""
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert "rationale" in done.stdout
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 2  # of processor time: shared machines wait


def test_put_into_the_box_with_a_card(box: Path, trained_run: Path, int8_bundle: Path) -> None:
    settings = DataSettings(test_limit=150)
    folder = add_model(
        int8_bundle,
        "planted",
        run=trained_run,
        data="builtin:planted",
        licence="apache-2.0",
        datasets=["me/planted"],
        base_model="me/nano",
        settings=settings,
    )
    assert models.model_names() == ["planted", "sentiment"]
    assert Manifest.load(folder).sealed
    same = [name for name in Manifest.load(folder).fields["files"] if name != "README.md"]
    assert all((folder / name).read_bytes() == (int8_bundle / name).read_bytes() for name in same)

    found = evaluate(Path("planted"), "builtin:planted", settings)
    control = counting_control(RunFolder(trained_run))
    assert control is not None
    random = evaluate(control.path, "builtin:planted", settings)
    card = (folder / "README.md").read_text()
    for words in (
        "| Rows of `me/planted` | 150 |",
        f"| Accuracy | {found['accuracy']:.4f} (95 % interval ",
        f"| Rationale ratio | {found['rationale_ratio']:.4f} |",
        f"(control) | {random['accuracy']:.4f} |",
        "license: apache-2.0",
        "base_model: me/nano",
        "- me/planted",
        "split: test",
        "## What the rationale means",
    ):
        assert words in card


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("Sentiment", {}, "no name for a model"),
        ("../outside", {}, "no name for a model"),
        ("sentiment", {}, "is not empty"),
        ("large", {"LARGEST": 1000}, "and a model in the box at most 1,000"),
    ],
)
def test_what_does_not_go_into_the_box(
    box: Path,
    trained_run: Path,
    int8_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: dict[str, int],
    words: str,
) -> None:
    from rekd_edge.models import add

    for attribute, value in change.items():
        monkeypatch.setattr(add, attribute, value)
    arguments: Sequence[str] = [str(int8_bundle), name, "--run", str(trained_run), "--data", "builtin:planted"]
    with pytest.raises(InputError, match=words):
        add_model(
            int8_bundle,
            name,
            run=trained_run,
            data="builtin:planted",
            licence="mit",
            settings=DataSettings(test_limit=50),
        )
    assert add.main([*arguments, "--licence", "mit", "--test-limit", "50"]) == 2
    assert models.model_names() == ["sentiment"]


def test_what_ships_opens_and_says_its_worth() -> None:
    for name in models.model_names():
        manifest = Rationalizer.load(name, threads=1).manifest
        assert sum(record["size"] for record in manifest.fields["files"].values()) <= 15_000_000
        card = (models.BOX / name / "README.md").read_text(encoding="utf-8")
        assert all(words in card for words in ("license:", "## On the test split", "(control)"))


def test_the_demo_ends_with_it(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rekd_edge import demo

    shown: list[str] = []
    monkeypatch.setattr(demo, "show", lambda console, source, prediction: shown.append(source))
    monkeypatch.setattr(demo, "DATA", ())
    demo.run_demo(Path("demo"))
    assert shown == list(demo.SENTENCES)

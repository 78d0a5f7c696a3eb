"""The report: one file without links to elsewhere, with the figures of `evaluate`, in which texts stay texts."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rekd_edge.cli import app
from rekd_edge.data import DataSettings
from rekd_edge.errors import InputError
from rekd_edge.evaluate import evaluate
from rekd_edge.report import write_report
from rekd_edge.report.gallery import _chosen, _pieces
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train

BUNDLES = Path(__file__).parents[1] / "vectors" / "bundles"
PLANTED = {"data.spec": "builtin:planted", "backbone": "random:bert-nano", "layers": 1, "epochs": 1}
SMALL = {"data.train_limit": 32, "data.eval_limit": 16, "data.max_length": 40, "batch_size": 16, "target_ratio": 0.2}


class Page(HTMLParser):
    """What a page refers to, and its visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def run(make_once: Callable[..., Path]) -> Path:
    return make_once("evaluated", lambda folder: train(load_config(None, {**PLANTED, **SMALL}), folder))


def test_figures_curves_audit_and_gallery_of_a_run_and_a_bundle(run: Path, tmp_path: Path) -> None:
    systems = [shutil.copytree(run, tmp_path / "student"), BUNDLES / "text-int8"]
    few = DataSettings(train_limit=60)
    files = write_report(systems, "builtin:planted", tmp_path / "out" / "report.html", few, limit=60, shown=8)
    assert {file.name for file in files} == {"report.html", "report-accuracy-ratio.svg", "report-training.svg"}

    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.words).split())
    for path in systems:
        figures = evaluate(path, "builtin:planted", limit=60)
        accuracy = figures["accuracy"]
        agreement = [figures[name] for name in ("token_precision", "token_recall", "token_f1", "iou_f1", "auprc")]
        assert re.search(path.name + "".join(rf" {100 * value:.1f}\s%" for value in agreement), text)
        assert re.search(rf"{path.name} \((run|bundle)\) re {100 * accuracy:.1f}\s%", text)

    assert text.count("Does the predictor alone, fed the rationale") == 2
    assert page.tags.count("article") == 2 * 8
    assert page.tags.count("svg") == 2
    assert "what a person marked is underlined" in text


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    write_report([BUNDLES / "image-int8"], "builtin:digits", tmp_path / "a.html", limit=20, shown=4)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    links = Page(page).links
    assert len([link for link in links if link.startswith("data:image/png;base64,")]) == 4
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\((?!['\"]?(#|data:))|@import|<link|fetch\(|XMLHttpRequest", page)
    assert "Audit" not in page  # 20 examples are too few


def test_texts_and_names_stay_texts(tmp_path: Path) -> None:
    text = 'a superb <script>alert("x")</script> <b>film</b> & \x1b[31m more'
    rows = [json.dumps({"text": text, "label": label}) for label in ("neg", "pos")]
    (tmp_path / "test.jsonl").write_text("\n".join(rows))
    write_report([BUNDLES / "text-fp32"], str(tmp_path), tmp_path / "a.html", shown=2)
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert page.tags.count("script") == 1
    assert page.tags.count("b") == 0
    assert 'alert("x")' in "".join(page.words)
    assert "\x1b" not in "".join(page.words)


def test_pieces_of_a_text_put_it_together_again() -> None:
    text = "one two three four"
    pieces = _pieces(text, [(0, 3), (8, 13)], [(4, 13)])
    assert [(piece.text, piece.selected, piece.marked) for piece in pieces] == [
        ("one", True, False),
        (" ", False, False),
        ("two ", False, True),
        ("three", True, True),
        (" four", False, False),
    ]
    assert _pieces("", [], []) == []
    long = _pieces("x" * 2000, [(0, 1), (1500, 1501)], [])
    assert long[-1].text == " … (800 more characters)"


def test_the_gallery_prefers_what_says_most() -> None:
    wrong, unsure, everything = np.zeros(100, bool), np.zeros(100, bool), np.ones(100, bool)
    wrong[[3, 50]] = True
    unsure[10:40] = True
    chosen = _chosen([wrong, unsure, everything], 12)
    assert len(chosen) == len(set(chosen)) == 12
    assert {3, 50} <= set(chosen)
    assert sum(10 <= place < 40 for place in chosen) >= 3
    assert _chosen([wrong[:5], unsure[:5], everything[:5]], 12) == [0, 1, 2, 3, 4]
    assert _chosen([wrong, unsure, everything], 0) == []


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    bundle = BUNDLES / "text-fp32"
    with pytest.raises(InputError, match=r"ends in \.html"):
        write_report([bundle], "builtin:planted", tmp_path / "report.pdf")
    with pytest.raises(InputError, match="is a control"):
        write_report([run / "control-descent"], "builtin:planted", tmp_path / "a.html", limit=20)
    with pytest.raises(InputError, match="have the same name"):
        write_report([bundle, bundle], "builtin:planted", tmp_path / "a.html", DataSettings(), limit=20, shown=1)
    assert not list(tmp_path.iterdir())


def test_the_verb(tmp_path: Path) -> None:
    given = [
        "report",
        str(BUNDLES / "text-fp32"),
        "--data",
        "builtin:planted",
        "-o",
        str(tmp_path / "a.html"),
        "--limit",
        "20",
    ]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0
    assert str(tmp_path / "a.html") in done.stdout.replace("\n", "")

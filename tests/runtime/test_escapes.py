"""Strings from strangers (manifests, paths, arguments) reach the terminal without control characters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e"

Run = Callable[..., tuple[int, str, str]]


def assert_clean(text: str) -> None:
    """Nothing that moves a cursor or reorders a line."""
    assert not set(text) & set("\x1b\x07\x9b\u202e")
    assert not any(ord(character) < 32 and character not in "\n\t" for character in text)


def test_what_a_manifest_says(text_bundle: Path, edit_manifest: Callable[..., None], run: Run) -> None:
    edit_manifest(
        text_bundle,
        method=f"re{ESCAPES}",
        labels=[f"negative{ESCAPES}", f"positive{ESCAPES}\nsecond line"],
        metrics={f"accuracy{ESCAPES}": f"{ESCAPES}0.9"},
        failures=[ESCAPES],
    )
    for arguments in (
        ["inspect", text_bundle],
        ["inspect", text_bundle, "--json"],
        ["predict", text_bundle, "a good film"],
        ["predict", text_bundle, "a good film", "--json"],
    ):
        status, out, err = run(*arguments)
        assert (status, err) == (0, "")
        assert "positive" in out
        assert_clean(out)


def test_the_size_of_a_file(text_bundle: Path, edit_manifest: Callable[..., None], run: Run) -> None:
    for size, digest in ((ESCAPES, "0" * 64), (1, ESCAPES)):
        edit_manifest(text_bundle, files={"model.onnx": {"size": size, "sha256": digest}})
        assert_one_clean_sentence(run("inspect", text_bundle))


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", ESCAPES],
        ["predict", "bundle", "good", f"--{ESCAPES}"],
        ["verify", "bundle", "--trusted-key", ESCAPES],
        ["train", "--config", ESCAPES, "--output", "run"],
        ["train", "--data", "builtin:planted", "--backbone", ESCAPES, "--method", "re", "--output", "run"],
        ["train", "--set", f"{ESCAPES}=3", "--output", "run"],
        ["evaluate", "bundle", "--data", ESCAPES],
        ["sweep", ESCAPES, "--dry-run"],
        [ESCAPES],
    ],
)
def test_what_was_typed(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, arguments: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    text_bundle.rename("bundle")
    assert_one_clean_sentence(run(*arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_labels_of_data(tmp_path: Path, run: Run) -> None:
    (tmp_path / "data.csv").write_text(f"text,label\n{ESCAPES},only{ESCAPES}\n" * 1 + f"b,only{ESCAPES}\n" * 20)
    arguments = ["train", "--method", "cls", "--backbone", "random:bert-nano", "--data", tmp_path / "data.csv"]
    assert_one_clean_sentence(run(*arguments, "--output", tmp_path / "run"))


def assert_one_clean_sentence(outcome: tuple[int, str, str]) -> None:
    status, out, err = outcome
    assert (status, out) == (2, "")
    assert err.startswith("rekd-edge: ")
    assert err.count("\n") == 1
    assert_clean(err)

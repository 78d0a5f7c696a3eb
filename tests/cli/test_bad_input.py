"""Data, teachers, bundles and images that do not fit are refused in one sentence, and nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cli_calls import QUICK, Outcome, assert_fails, table, train_arguments
from PIL import Image


def test_bad_data_is_refused_before_training(run: Callable[..., Outcome], tmp_path: Path) -> None:
    good = table(tmp_path / "good", train=["bad", "good"] * 10)
    single = table(tmp_path / "single", train=["good"] * 10)
    differing = table(tmp_path / "differing", train=["bad", "good"] * 10, test=["awful", "good"])
    tiny = table(tmp_path / "tiny", train=["bad", "good"])
    empty = tmp_path / "empty"
    empty.mkdir()
    output = tmp_path / "run"
    for data, settings, words in (
        ("nowhere", [], ["'nowhere'"]),
        (empty, [], ["holds no data"]),
        (good, ["data.text_column=body"], ["no column 'body'", "text, label"]),
        (good, ["data.label_column=stars"], ["no column 'stars'"]),
        (single, [], ["single label 'good'"]),
        (differing, [], ["labels differ between splits", "awful"]),
        (tiny, [], ["too few"]),
    ):
        outcome = run(*train_arguments(output, "--data", data, settings=[*QUICK, *settings]))
        assert_fails(outcome, 2, *words)
        assert not output.exists()


def test_an_unfit_teacher_is_refused(
    run: Callable[..., Outcome], trained_run: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    output, any_teacher = tmp_path / "run", [*QUICK, "allow_weak_teacher=true"]
    other = table(tmp_path / "other", train=["bad", "good"] * 10)
    for teacher, data, settings, words in (
        (make_run("image"), "builtin:planted", any_teacher, ["reads image, the data is text"]),
        (trained_run, other, any_teacher, ["knows the labels neg, pos", "bad, good"]),
        (make_run("text", "zero", "cls"), "builtin:planted", any_teacher, ["is a cls run"]),
        (make_run("text"), "builtin:planted", QUICK, ["without a random-mask control", "allow_weak_teacher=true"]),
        (trained_run, "builtin:planted", any_teacher, ["reads 64 tokens, this run 32"]),
        (tmp_path / "nowhere", "builtin:planted", QUICK, ["does not exist"]),
    ):
        more = ["--teacher", teacher, "--data", data]
        assert_fails(run(*train_arguments(output, *more, method="rekd", settings=settings)), 2, *words)
        assert not output.exists()
    assert_fails(run(*train_arguments(output, "--data", "builtin:planted", method="rekd")), 2, "--teacher")


def test_a_taken_folder_stays_as_it_is(
    run: Callable[..., Outcome], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    for arguments in (
        train_arguments(tmp_path / "taken", "--data", "builtin:planted"),
        ["export", make_run("text"), "--output", tmp_path / "taken"],
        ["demo", "--output", tmp_path / "taken"],
    ):
        assert_fails(run(*arguments), 2, "not empty")
    assert_fails(run("export", make_run("text"), "--output", tmp_path / "taken" / "mine"), 2, "is a file")
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "mine"]


def test_a_damaged_bundle_is_refused(run: Callable[..., Outcome], int8_bundle: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "tokenizer.json", "manifest.json"):
        bundle = tmp_path / name
        shutil.copytree(int8_bundle, bundle)
        (bundle / name).write_bytes((bundle / name).read_bytes()[:-100])
        for arguments in (["predict", bundle, "good"], ["inspect", bundle], ["bench", bundle]):
            assert_fails(run(*arguments), 2, name)
    assert_fails(run("evaluate", tmp_path, "--data", "builtin:planted"), 2, "neither a run nor a bundle")
    assert_fails(run("predict", tmp_path / "nowhere", "good"), 2, "not a folder")


def test_weights_that_are_not_numbers_are_refused(
    run: Callable[..., Outcome], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    broken = tmp_path / "run"
    shutil.copytree(make_run("text"), broken)
    weights = load_file(broken / "model.safetensors")
    next(iter(weights.values())).flat[0] = np.nan
    save_file(weights, broken / "model.safetensors")
    assert_fails(run("export", broken, "--output", tmp_path / "bundle"), 2, "NaN")
    assert_fails(run("evaluate", broken, "--data", "builtin:planted", "--limit", 10), 2, "NaN")
    assert not (tmp_path / "bundle").exists()


def test_data_of_another_kind_is_refused(
    run: Callable[..., Outcome], int8_bundle: Path, digits_bundle: Path, tmp_path: Path
) -> None:
    for verb in ("evaluate", "bench"):
        assert_fails(run(verb, int8_bundle, "--data", "builtin:digits"), 2, "image")
        assert_fails(run(verb, digits_bundle, "--data", "builtin:planted"), 2, "text")
    assert_fails(run("evaluate", int8_bundle, "--data", "builtin:planted", "--split", "dave"), 2, "train, validation")
    other = table(tmp_path / "other", test=["bad", "good"])
    assert_fails(run("evaluate", int8_bundle, "--data", other), 2, "same labels")
    assert_fails(run("bench", int8_bundle, "--baseline", tmp_path), 2, "no baseline")


def test_an_unreadable_image_is_refused(
    run: Callable[..., Outcome], int8_bundle: Path, digits_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    for name in ("empty.png", "text.png", "nowhere.png", "."):
        assert_fails(run("predict", digits_bundle, tmp_path / name), 2, "image")
    Image.new("L", (8, 8)).save(tmp_path / "fine.png")
    for target in (tmp_path, tmp_path / "no" / "folder.png"):
        assert_fails(run("predict", digits_bundle, tmp_path / "fine.png", "--png", target), 2, "a PNG in a folder")
    assert_fails(run("predict", int8_bundle, "good", "--png", tmp_path / "new.png"), 2, "--png")
    assert {path.name for path in tmp_path.iterdir()} == {"empty.png", "text.png", "fine.png"}

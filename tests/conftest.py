"""Runs and bundles that several test folders share: tiny, and made once a session for all its workers."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from numpy.typing import NDArray

# One thread a worker, and in the processes that tests start: matrices this small gain nothing from a second one. Set
# before anything imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_INTRA_OP_NUM_THREADS", "1")  # where a session asks for none
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may wait for the network

settings.register_profile("project", deadline=None)  # shared machines stall; a slow example is no failure
settings.load_profile("project")

MAX_WORKERS = 8
"""Each takes up to 1 GB."""

SENTENCES = [
    "An absolute delight from the first scene to the last.",
    "A dull, lifeless film; the plot is a mess and the actors are bored!",
    "סרט טוב מאוד",
    "c'est un très bon film, vraiment",
]
DIGITS = {"height": 8, "width": 8, "patch_size": 1, "resample": 3, "rescale_factor": 1 / 255}
MAX_LENGTH = 32


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker for each processor that this process may use, which in a container may be fewer than there are."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, MAX_WORKERS)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking through torch and transformers after every training run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Path]:
    """Make the folder `name` once a session: the first worker that asks for it makes it, the others wait.

    Tests must not change such a folder; one that has to copies it first.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each worker has a folder of its own in the session's
    made = base / "made-once"

    def make(name: str, write: Callable[[Path], Any]) -> Path:
        folder, done = made / name, made / f"{name}.done"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(made / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed to finish it
                write(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def select_by_rule() -> Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.bool_]]:
    """The rule of selection in numpy, row by row: margins above 0, else the first of the largest; features only."""

    def select(margin: NDArray[np.float32], feature: NDArray[np.bool_]) -> NDArray[np.bool_]:
        mask = (margin > 0) & feature
        for row, (values, real) in enumerate(zip(margin, feature, strict=True)):
            if real.any() and not mask[row].any():
                mask[row, np.flatnonzero(real & (values == values[real].max()))[0]] = True
        return mask

    return select


@pytest.fixture(scope="session")
def make_run(make_once: Callable[..., Path]) -> Callable[..., Path]:
    """A finished run with random weights, the same each time: one layer, 64 wide; its data is gone.

    Texts are read in at most 32 tokens and have the labels of `builtin:planted`; images have 8 x 8 patches of one
    pixel and the labels of `builtin:digits`. Margins lie on both sides of 0, and some rows have none above it.
    `drop-mean` classifies from the mean of what is not dropped. `family` puts another net in both towers, on a
    transformer's features.
    """

    def make(task: str, mask_mode: str = "zero", method: str = "re", family: str = "") -> Path:
        key = task, mask_mode, method, family
        return make_once(f"random/{'-'.join(filter(None, key))}", lambda folder: _write_run(folder, *key))

    return make


def _write_run(folder: Path, task: str, mask_mode: str, method: str, family: str) -> None:
    import torch

    from rekd_edge.data import train_tokenizer
    from rekd_edge.modeling import RationaleConfig, RationaleModel
    from rekd_edge.modeling.encoders import encoder_from_backbone
    from rekd_edge.modeling.encoders.backbones import load_backbone

    folder.mkdir()
    is_text = task == "text"
    tokenizer = train_tokenizer(SENTENCES, 200)
    name, options = "random:vit-nano", {"layers": 1}
    if is_text:
        name = "random:bert-nano"
        options |= {"max_length": MAX_LENGTH, "vocabulary": tokenizer.get_vocab_size()}
    name = f"{family}:{name}" if family else name
    torch.manual_seed(0)
    predictor = encoder_from_backbone(load_backbone(name, **options))
    generator = None if method in ("cls", "control") else encoder_from_backbone(load_backbone(name, **options))
    config = RationaleConfig(
        task=task,
        method=method,
        labels=["neg", "pos"] if is_text else [str(digit) for digit in range(10)],
        predictor=predictor.config.to_dict(),
        generator=None if generator is None else generator.config.to_dict(),
        head_hidden=256 if is_text else None,
        mask_mode=mask_mode.removesuffix("-mean"),
        pooling="mean" if mask_mode.endswith("-mean") else "first",
        target_ratio=0.3,
        margin_bias=-1.0,
        max_length=MAX_LENGTH if is_text else None,
        special_token_ids=[2, 3] if is_text else [],
        image=None if is_text else {**DIGITS, "mean": [0.5] * 3, "std": [0.5] * 3},
    )
    model = RationaleModel(config, predictor, generator)
    with torch.no_grad():
        for weight in model.parameters():  # far enough from 0 that what a layer sees shows in what it says
            weight.copy_(0.15 * torch.randn(weight.shape) + (weight if weight.dim() == 1 else 0))
    model.save_pretrained(folder)
    if is_text:
        tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "training.json").write_text(json.dumps({"recipe": {"data": {"spec": "a-folder-that-is-gone"}}}))
    (folder / "metrics.json").write_text(json.dumps({"accuracy": 0.75, "rationale_ratio": 0.3}))


@pytest.fixture(scope="session")
def trained_run(make_once: Callable[..., Path]) -> Path:
    """An `re` run on `builtin:planted` that has found the cue words, with its control."""
    from rekd_edge.training.configuration import load_config
    from rekd_edge.training.run import train

    settings = {"layers": 1, "data.train_limit": 600, "data.eval_limit": 200, "data.max_length": 64}
    config = load_config("planted", {**settings, "epochs": 4, "learning_rate": 3e-3})
    return make_once("trained", lambda run: train(config, run))


@pytest.fixture(scope="session")
def int8_bundle(trained_run: Path, make_once: Callable[..., Path]) -> Path:
    """`trained_run`, exported to int8."""
    from rekd_edge.export import export_bundle

    return make_once("bundles/int8", lambda bundle: export_bundle(trained_run, bundle, precision="int8"))


@pytest.fixture(scope="session")
def digits_bundle(make_run: Callable[..., Path], make_once: Callable[..., Path]) -> Path:
    """An image run with random weights, exported to fp32."""
    from rekd_edge.export import export_bundle

    return make_once("bundles/digits", lambda bundle: export_bundle(make_run("image", "drop"), bundle))


@pytest.fixture(scope="session")
def text_bundle(make_run: Callable[..., Path], make_once: Callable[..., Path]) -> Path:
    """A text run with random weights, exported to fp32."""
    from rekd_edge.export import export_bundle

    return make_once("bundles/text", lambda bundle: export_bundle(make_run("text", "drop"), bundle))

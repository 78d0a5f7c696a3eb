"""`rekd-edge evaluate`: the same figures for a run (torch) and for a bundle (ONNX Runtime)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from rekd_edge.data import DataSettings, DataSource, Examples, TextFeatures, load_data
from rekd_edge.data.sampling import stratified_sample
from rekd_edge.errors import InputError
from rekd_edge.evaluation import classification_metrics, rationale_agreement, rationale_ratio
from rekd_edge.methods import method_of

if TYPE_CHECKING:
    from rekd_edge.training.inference import Masks

__all__ = ["evaluate"]


def evaluate(
    path: Path,
    spec: str,
    settings: DataSettings | None = None,
    split: str = "test",
    limit: int | None = None,
    masks: Masks = "deterministic",
) -> dict[str, Any]:
    """Measure a run or a bundle on one split.

    Args:
        path: a run folder or a bundle.
        spec: the data SPEC.
        settings: columns and limits of the data.
        split: which split; `all` for every one.
        limit: at most so many examples, a stratified sample.
        masks: of a run: `deterministic`, as on the device, or `sampled` once an example from the uncalibrated margins,
            as the published code of arXiv 2601.22531 evaluates.

    Returns:
        `n`, `accuracy`, `macro_f1`, `rationale_ratio`, and where the true rationale is known its precision,
        recall and F1 (`rationale_f1`). `rationale_accuracy` is that from the rationale alone, of a method that decides
        from more than that.

    Raises:
        InputError: neither run nor bundle, data of another modality or label set, or sampled masks of something that
            samples none.
    """
    is_bundle = (path / "manifest.json").is_file()
    if not is_bundle and not (path / "config.json").is_file():
        raise InputError(f"{path} is neither a run nor a bundle; give a folder that train or export wrote.")
    if is_bundle and masks == "sampled":
        raise InputError("A bundle's masks are deterministic; give a run, or leave --masks out.")

    data, examples = _load(spec, settings or DataSettings(), split, limit)
    predicted, shown, labels, tokenizer, alone = (
        _bundle(path, data, examples) if is_bundle else _run(path, data, examples, masks)
    )

    report: dict[str, Any] = {
        "n": len(examples),
        **classification_metrics(predicted, labels),
        "rationale_ratio": rationale_ratio(shown),
    }

    if alone is not None:
        report["rationale_accuracy"] = float(np.mean(alone == labels))

    if examples.rationale_spans is not None and tokenizer is not None:
        texts = TextFeatures(examples, tokenizer)
        truth = [texts.true_rationale(i)[texts.features[i]] for i in range(len(texts))]
        report |= rationale_agreement(shown, truth)

    return report


def _load(spec: str, settings: DataSettings, split: str, limit: int | None) -> tuple[DataSource, Examples]:
    """The data, and the examples of a split, of which at most `limit` are read where that can be."""
    if limit is not None and split != "all":
        settings = replace(settings, train_limit=limit, eval_limit=limit, test_limit=limit)

    data = load_data(spec, settings)
    examples = data.split(split)

    if limit is not None:
        examples = examples.select(stratified_sample(examples.labels, limit, settings.split_seed))

    return data, examples


Predicted = tuple[np.ndarray, list[np.ndarray], np.ndarray, Tokenizer | None, np.ndarray | None]
"""Predicted label ids, masks, true label ids, what read the texts (None for images, and for controls, which are
measured on several random masks an example), and label ids predicted from the rationale alone, where that differs."""


def _run(path: Path, data: DataSource, examples: Examples, masks: Masks) -> Predicted:
    import torch

    from rekd_edge.modeling import RationaleModel
    from rekd_edge.training.configuration import unused_by
    from rekd_edge.training.inference import batches, predict
    from rekd_edge.training.preparation import preprocessing_of_run

    model = RationaleModel.from_pretrained(path).to("cuda" if torch.cuda.is_available() else "cpu")
    config = model.config
    _check(path, config.task, config.labels, data)

    if masks == "sampled" and "dev_masks" in unused_by(config.method):
        raise InputError(f"{config.method} samples no masks when it is evaluated; leave --masks out.")

    preprocessing = preprocessing_of_run(path, config)
    loader = batches(preprocessing.features(examples), preprocessing.collator(), 64)
    result = predict(model, loader, masks=masks)
    tokenizer = None if method_of(config.method).is_control else preprocessing.tokenizer
    alone = None if result.rationale_logits is None else result.rationale_logits.argmax(axis=1)

    return result.logits.argmax(axis=1), result.masks, result.labels, tokenizer, alone


def _bundle(path: Path, data: DataSource, examples: Examples) -> Predicted:
    from rekd_edge.runtime import Rationalizer

    rationalizer = Rationalizer.load(path)
    manifest = rationalizer.manifest
    _check(path, "image" if manifest.text is None else "text", list(manifest.labels), data)
    rows = rationalizer.predict_rows(examples.inputs)
    alone = None

    if rows.scores is not None:
        texts = [str(text) for text in examples.inputs]
        alone = rationalizer.logits_from_rationales(texts, rows.masks).argmax(axis=1)

    return rows.logits.argmax(axis=1), rows.masks, examples.labels, rationalizer.tokenizer, alone


def _check(path: Path, task: str, labels: list[str], data: DataSource) -> None:
    if task != data.task:
        raise InputError(f"{path} reads {task}, the data is {data.task}; choose data of its kind.")

    if labels != list(data.label_names):
        raise InputError(
            f"{path} knows {len(labels)} labels ({', '.join(labels[:3])}, …), the data has {len(data.label_names)} "
            f"({', '.join(data.label_names[:3])}, …); evaluate on data with the same labels."
        )

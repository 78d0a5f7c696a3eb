"""`rekd-edge export`: a finished run becomes a verified bundle, or nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from rekd_edge.cards import bundle_card
from rekd_edge.data import DataSettings, DataSource, Examples, TextFeatures, load_data
from rekd_edge.errors import FailureError, InputError
from rekd_edge.export.drift import measure_near_ties
from rekd_edge.export.graph import export_graph, graph_io
from rekd_edge.export.parity import (
    LOGIT_TOLERANCE,
    Answers,
    Feed,
    agreement,
    graph_answers,
    invariance,
    torch_answers,
)
from rekd_edge.export.provenance import provenance
from rekd_edge.export.quantization import quantize, scheme
from rekd_edge.export.stages import name_stages
from rekd_edge.export.targets import check_target
from rekd_edge.export.tokenizer import neutral_tokenizer
from rekd_edge.export.vocabulary import check_trimmable, trim_vocabulary, trimming_effect
from rekd_edge.files import check_output_folder, read_json, staged_folder
from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.progress import say, steps
from rekd_edge.runs import RunFolder
from rekd_edge.runtime.bundle import LAYOUT, write_manifest
from rekd_edge.runtime.graph import MAX_LENGTH_KEY
from rekd_edge.runtime.profiling import stage_shares
from rekd_edge.training.preparation import Preprocessing, preprocessing_of_run
from rekd_edge.versions import versions

__all__ = ["export_bundle"]

VERIFIED_ROWS = 1000
CALIBRATION_ROWS = 128
GENERATED_ROWS = 64
TIMED_ROWS = 64
MASK_AGREEMENT = 0.99
ERRORS = 3  # as ONNX Runtime counts severities
ACCURACY_LOSS = 0.003


@dataclass(frozen=True)
class Sample:
    """Inputs to calibrate and to verify on, with the labels where they are known."""

    source: str
    feeds: list[Feed]
    labels: NDArray[np.int64] | None
    calibration: list[Feed]


def export_bundle(
    run: Path,
    output: Path,
    precision: str = "fp32",
    target: str = "cpu",
    isa: str = "auto",
    calibration_data: str | None = None,
    data_settings: DataSettings | None = None,
    force: bool = False,
    trim: bool = False,
) -> dict[str, Any]:
    """Export a run, check the graph against it, and write the bundle.

    Args:
        run: a finished run.
        output: a new folder.
        precision: `fp32` or `int8`.
        target: `cpu`, `mobile` or `web`: what the bundle is checked for. The graph is the same for all of them.
        isa: instruction set that the bundle is meant for, for the manifest: int8 weights are right on all of them.
        calibration_data: SPEC whose train split calibrates and whose validation split verifies; by default the data
            of the run, and generated inputs where that is not at hand.
        data_settings: columns of the calibration data.
        force: write the bundle even if its check fails; the manifest then says `"verified": false`.
        trim: leave out the word pieces that the training texts don't hold (see `trim_vocabulary`).

    Returns:
        The manifest.

    Raises:
        InputError: no finished run, a control, data of another kind, a taken output folder, or a vocabulary to trim
            that is no WordPiece or whose training texts are not at hand.
        FailureError: the graph does not agree with the run; nothing is written.
    """
    check_output_folder(output)
    onnxruntime.set_default_logger_severity(ERRORS)  # the weights that quantisation leaves unused are no news
    config = RationaleConfig.load(run)
    if method_of(config.method).is_control:
        raise InputError(f"{run} is a random-mask control, which selects nothing; export an re, rekd or cls run.")
    model = RationaleModel.from_pretrained(run)
    preprocessing = preprocessing_of_run(run, config)
    training = RunFolder(run).read_record()
    if trim:
        check_trimmable(preprocessing)
    data = _data(config, calibration_data, data_settings, training, needed=trim)
    vocabulary = None
    if trim and data is not None:
        trimmed = trim_vocabulary(model, preprocessing, cast("list[str]", data.split("train").inputs))
        vocabulary = trimming_effect(model, preprocessing, trimmed, _verified(data))
        model, preprocessing, config = trimmed.model, trimmed.preprocessing, trimmed.model.config
    sample = _generated_sample(preprocessing, config) if data is None else _data_sample(preprocessing, data)
    with staged_folder(output) as staging, steps("export") as step:
        graph = staging / LAYOUT.graph
        step(0, 4, "tracing")
        export_graph(model, graph)
        step(1, 4, f"checking {len(sample.feeds)} rows against the run")
        reference = graph_answers(graph, sample.feeds, config.pad_token_id)
        parity, failures = _check_fp32(model, sample, reference)
        quantization = None
        if precision == "int8":
            step(2, 4, "quantising")
            in_float = ["selection_margin"] if model.generator_in_float else []
            onnx.save(quantize(onnx.load(graph), sample.calibration, "cpu", in_float), graph)
            quantization, failed = _check_int8(graph, sample, reference, config.pad_token_id)
            recurrent = model.predictor.encoder.recurrent
            quantization = {
                "scheme": scheme(bool(sample.calibration), "cpu", recurrent),
                "generator": "float" if in_float else "int8",
                **quantization,
            }
            failures += failed
        final = onnx.load(graph)
        name_stages(final, selects=config.selects)
        if config.max_length is not None:
            onnx.helper.set_model_props(final, {MAX_LENGTH_KEY: str(config.max_length)})
        onnx.save(final, graph)
        step(3, 4, "checking that answers depend on nothing else")
        invariant = invariance(graph, sample.feeds, config.pad_token_id)
        if invariant["mask_differences"] or invariant["label_differences"]:
            failures.append(
                f"{invariant['mask_differences']} mask positions and {invariant['label_differences']} labels change "
                "with batch, padding or threads"
            )
        if preprocessing.tokenizer is not None:
            neutral_tokenizer(preprocessing.tokenizer).save(str(staging / LAYOUT.tokenizer))
        near_ties = measure_near_ties(final, sample.feeds, precision == "fp32" or model.generator_in_float)
        target_check, failed = check_target(final, staging, target)
        failures += failed
        step(4, 4)
        if failures and not force:
            raise FailureError(
                f"The bundle failed its check: {'; '.join(failures)}. Nothing was written (see --force)."
            )
        fields = {
            "task": f"{config.task}-classification",
            "method": config.method,
            "labels": config.labels,
            "precision": precision,
            "target": target,
            "target_check": target_check,
            "isa": isa,
            "mask_mode": config.mask_mode,
            "target_ratio": config.target_ratio,
            "margin_bias": config.margin_bias,
            **model.extra_fields(),
            **_preprocessing_fields(config),
            "vocabulary": vocabulary,
            "graph": graph_io(model),
            "verified": not failures,
            "failures": failures,
            "parity": {"inputs": sample.source, **parity},
            "quantization": quantization,
            "invariance": invariant,
            "near_ties": near_ties.to_dict(),
            "time_shares": stage_shares(graph, sample.feeds[:TIMED_ROWS], threads=1),
            "calibration": {"margin_bias": config.margin_bias, "rows": len(sample.calibration)},
            "metrics": RunFolder(run).read_metrics(),
            "versions": versions("torch", "transformers", "onnx", "onnxruntime"),
            "provenance": provenance(run, training),
        }
        bundle_card(fields, training).save(staging / LAYOUT.card)
        write_manifest(staging, fields)
        return read_json(staging / LAYOUT.manifest)


def _check_fp32(model: RationaleModel, sample: Sample, graph: Answers) -> tuple[dict[str, Any], list[str]]:
    found = agreement(torch_answers(model, sample.feeds), graph)
    failures = []
    if found.mask_differences:
        failures.append(f"{found.mask_differences} mask positions differ from the run's")
    if found.largest_logit_difference > LOGIT_TOLERANCE:
        failures.append(f"logits differ from the run's by {found.largest_logit_difference:.1e}")
    scores = found.largest_score_difference
    if scores is not None and scores > LOGIT_TOLERANCE:
        failures.append(f"rationale scores differ from the run's by {scores:.1e}")
    return found.to_dict(), failures


def _check_int8(path: Path, sample: Sample, reference: Answers, pad_id: int) -> tuple[dict[str, Any], list[str]]:
    answers = graph_answers(path, sample.feeds, pad_id)
    found = agreement(reference, answers)
    measured: dict[str, Any] = found.to_dict()
    if sample.labels is None:  # generated inputs lie anywhere; they say nothing about agreement on real ones
        return measured, []
    for name, side in (("accuracy_fp32", reference), ("accuracy_int8", answers)):
        measured[name] = float((side.logits.argmax(axis=1) == sample.labels).mean())
    failures = []
    if found.mask_agreement < MASK_AGREEMENT:
        failures.append(f"int8 masks agree with fp32 on {found.mask_agreement:.2%} of the features")
    # the difference of two accuracies on the same rows varies by at most the root of the labels that changed
    allowed = ACCURACY_LOSS + 2.0 * found.label_differences**0.5 / found.rows
    if (lost := measured["accuracy_fp32"] - measured["accuracy_int8"]) > allowed:
        failures.append(f"int8 loses {lost:.2%} of accuracy")
    return measured, failures


def _data(
    config: RationaleConfig, spec: str | None, settings: DataSettings | None, training: dict[str, Any], needed: bool
) -> DataSource | None:
    """The data to calibrate and verify on; None where the run's own is gone and not needed."""
    if spec is not None:
        return _fitting_data(config, spec, settings or DataSettings())
    recorded = training.get("recipe", {}).get("data", {})
    settings = settings or DataSettings(**{key: value for key, value in recorded.items() if key != "spec"})
    try:
        return _fitting_data(config, str(recorded.get("spec")), settings)
    except InputError as error:
        if needed:
            raise InputError(
                f"The run's data is not at hand ({error}) --trim-vocabulary reads the training texts; give them with "
                "--calibration-data, or leave it out."
            ) from error
        say(f"The run's data is not at hand ({error}) The bundle is verified on generated inputs.")
        return None


def _fitting_data(config: RationaleConfig, spec: str, settings: DataSettings) -> DataSource:
    data = load_data(spec, settings)
    if data.task != config.task:
        raise InputError(f"The run reads {config.task}, {spec} is {data.task}; give --calibration-data of its kind.")
    if data.label_names != config.labels:
        raise InputError(f"{spec} has other labels than the run; give --calibration-data with the same.")
    return data


def _verified(data: DataSource) -> Examples:
    examples = data.split("validation")
    return examples.select(range(min(VERIFIED_ROWS, len(examples))))


def _data_sample(preprocessing: Preprocessing, data: DataSource) -> Sample:
    verify, train = _verified(data), data.split("train")
    chosen = np.random.default_rng(0).permutation(len(train))[:CALIBRATION_ROWS]
    calibrate = preprocessing.features(train.select(sorted(chosen.tolist())))
    return Sample("validation", list(_feeds(preprocessing.features(verify))), verify.labels, list(_feeds(calibrate)))


def _generated_sample(preprocessing: Preprocessing, config: RationaleConfig) -> Sample:
    rng = np.random.default_rng(0)
    feeds: list[Feed] = []
    for _ in range(GENERATED_ROWS):
        if preprocessing.image is not None:
            shape = (1, 3, preprocessing.image.height, preprocessing.image.width)
            feeds.append({"pixel_values": rng.normal(size=shape).astype(np.float32)})
            continue
        assert preprocessing.tokenizer is not None
        assert config.max_length is not None
        words = rng.integers(0, preprocessing.tokenizer.get_vocab_size(), rng.integers(0, config.max_length - 1))
        ids = preprocessing.tokenizer.encode("").ids
        row = np.array([[*ids[:1], *words, *ids[1:]]], dtype=np.int64)
        feeds.append({"input_ids": row, "attention_mask": np.ones_like(row)})
    return Sample("generated", feeds, None, [])


def _feeds(features: Any) -> Iterator[Feed]:
    """One unpadded row at a time."""
    for i in range(len(features)):
        if isinstance(features, TextFeatures):
            row = features.input_ids[i][None].astype(np.int64)
            yield {"input_ids": row, "attention_mask": np.ones_like(row)}
        else:
            yield {"pixel_values": features[i]["pixel_values"][None]}


def _preprocessing_fields(config: RationaleConfig) -> dict[str, Any]:
    if config.image is not None:
        return {"image": config.image}
    return {
        "text": {
            "max_length": config.max_length,
            "special_token_ids": config.special_token_ids,
            "pad_token_id": config.pad_token_id,
        }
    }

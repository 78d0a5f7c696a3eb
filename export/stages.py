"""The stages of an export, each handing a dataclass to the next:

prepare          the run, its preprocessing, and the rows to calibrate and verify on; nothing is written
trace            the model as an fp32 graph
verify           that graph against the run
quantise         the graph that ships, in the precision that was asked for
verify_shipped   that graph against the fp32 one, each answer against itself in other batches, and how far margins drift
package          tokenizer, manifest and card beside the graph
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import onnx

from rekd_edge.cards import bundle_card
from rekd_edge.data import DataSettings, Examples
from rekd_edge.errors import FailureError, InputError
from rekd_edge.evaluation import conformal_promise, probabilities, rows_needed
from rekd_edge.export.drift import NearTies, measure_near_ties
from rekd_edge.export.graph import export_graph, graph_io
from rekd_edge.export.interchange import write_interchange_files
from rekd_edge.export.nodes import name_nodes
from rekd_edge.export.parity import LOGIT_TOLERANCE, Answers, agreement, graph_answers, invariance, torch_answers
from rekd_edge.export.provenance import provenance
from rekd_edge.export.sample import (
    VERIFIED_POSITIONS,
    Sample,
    data_for_export,
    data_sample,
    generated_sample,
    rows_apart,
    verified_rows,
)
from rekd_edge.export.targets import check_target
from rekd_edge.export.tokenizer import neutral_tokenizer
from rekd_edge.export.vocabulary import check_trimmable, trim_vocabulary, trimming_effect
from rekd_edge.files import read_json
from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.precisions import precision_of
from rekd_edge.progress import say
from rekd_edge.records.monitor import summary
from rekd_edge.runs import RunFolder
from rekd_edge.runtime import Rationalizer
from rekd_edge.runtime.bundle import LAYOUT, write_manifest
from rekd_edge.runtime.graph import MAX_LENGTH_KEY
from rekd_edge.runtime.profiling import stage_shares
from rekd_edge.training.preparation import Preprocessing, preprocessing_of_run
from rekd_edge.versions import versions

__all__ = [
    "Prepared",
    "Quantised",
    "Shipped",
    "Traced",
    "Verified",
    "package",
    "prepare",
    "quantise",
    "trace",
    "verify",
    "verify_shipped",
]

MASK_AGREEMENT = 0.99
ACCURACY_LOSS = 0.003
TIMED_ROWS = 64
REFERENCE_ROWS = 500
COVERAGE = 0.9
"""Promised where rows were set apart and nothing else is asked for."""


@dataclass(frozen=True)
class Prepared:
    """Everything that an export reads, checked."""

    run: Path
    record: dict[str, Any]
    """The run's `training.json`."""
    model: RationaleModel
    preprocessing: Preprocessing
    sample: Sample
    vocabulary: dict[str, Any] | None
    """What trimming the vocabulary did; None where it is whole."""
    unseen: Examples | None
    """Validation examples, where the data is at hand; later decisions are compared with those on them."""
    apart: Examples | None = None
    """Examples that the run never met, to promise a coverage from; None where no such rows are known."""

    @property
    def config(self) -> RationaleConfig:
        """Of the model."""
        return self.model.config


@dataclass(frozen=True)
class Traced:
    """The model as an fp32 graph."""

    graph: Path


@dataclass(frozen=True)
class Verified:
    """How the fp32 graph compares with the run."""

    answers: Answers
    """Of the graph, what the shipped one is compared with."""
    parity: dict[str, Any]
    failures: list[str]


@dataclass(frozen=True)
class Quantised:
    """The graph that ships."""

    graph: Path
    precision: str
    facts: dict[str, Any] | None
    """What the scheme says of itself; None for fp32."""


@dataclass(frozen=True)
class Shipped:
    """What was found of the graph that ships."""

    quantization: dict[str, Any] | None
    invariance: dict[str, Any]
    near_ties: NearTies
    failures: list[str]


def prepare(run: Path, calibration_data: str | None, settings: DataSettings | None, trim: bool) -> Prepared:
    """Load a run and the rows to calibrate and verify on; on request, trim its vocabulary.

    Raises:
        InputError: no finished run, a control, data of another kind, or a vocabulary that cannot be trimmed.
    """
    config = RationaleConfig.load(run)
    if method_of(config.method).is_control:
        raise InputError(f"{run} is a random-mask control, which selects nothing; export an re, rekd or cls run.")

    model = RationaleModel.from_pretrained(run)
    preprocessing = preprocessing_of_run(run, config)
    record = RunFolder(run).read_record()
    if trim:
        check_trimmable(preprocessing)

    data = data_for_export(config, calibration_data, settings, record, needed=trim)
    vocabulary = None

    if trim and data is not None:
        trimmed = trim_vocabulary(model, preprocessing, cast("list[str]", data.split("train").inputs))
        vocabulary = trimming_effect(model, preprocessing, trimmed, verified_rows(data))
        model, preprocessing = trimmed.model, trimmed.preprocessing

    if data is None:
        sample = generated_sample(preprocessing, model.config)
    else:
        asked_for = settings is not None and settings.eval_limit is not None
        sample = data_sample(preprocessing, data, None if asked_for else VERIFIED_POSITIONS)

    unseen = None if data is None else verified_rows(data)
    apart = None if data is None or calibration_data is not None else rows_apart(data, settings, record)
    return Prepared(run, record, model, preprocessing, sample, vocabulary, unseen, apart)


def trace(prepared: Prepared, path: Path) -> Traced:
    """Write the fp32 graph."""
    export_graph(prepared.model, path)
    return Traced(path)


def verify(prepared: Prepared, traced: Traced) -> Verified:
    """Compare the fp32 graph with the run: masks are equal, logits and scores within `LOGIT_TOLERANCE`."""
    answers = graph_answers(traced.graph, prepared.sample.feeds, prepared.config.pad_token_id)
    found = agreement(torch_answers(prepared.model, prepared.sample.feeds), answers)
    failures = []

    if found.mask_differences:
        failures.append(f"{found.mask_differences} mask positions differ from the run's")
    if found.largest_logit_difference > LOGIT_TOLERANCE:
        failures.append(f"logits differ from the run's by {found.largest_logit_difference:.1e}")

    scores = found.largest_score_difference
    if scores is not None and scores > LOGIT_TOLERANCE:
        failures.append(f"rationale scores differ from the run's by {scores:.1e}")

    return Verified(answers, found.to_dict(), failures)


def quantise(prepared: Prepared, traced: Traced, precision: str) -> Quantised:
    """Put the graph that ships in the place of the fp32 one."""
    graph, facts = onnx.load(traced.graph), None

    if (scheme := precision_of(precision).load_scheme()) is not None:
        quantised = scheme(graph, prepared.sample.calibration, prepared.model)
        graph, facts = quantised.graph, quantised.facts

    name_nodes(graph, selects=prepared.config.selects)
    if prepared.config.max_length is not None:
        onnx.helper.set_model_props(graph, {MAX_LENGTH_KEY: str(prepared.config.max_length)})

    onnx.save(graph, traced.graph)
    return Quantised(traced.graph, precision, facts)


def verify_shipped(prepared: Prepared, verified: Verified, quantised: Quantised) -> Shipped:
    """Compare the graph that ships with the fp32 one, and its answers with themselves in other batches."""
    sample, pad_id = prepared.sample, prepared.config.pad_token_id
    answers = verified.answers
    quantization: dict[str, Any] | None = None
    failures: list[str] = []

    if quantised.facts is not None:
        answers = graph_answers(quantised.graph, sample.feeds, pad_id)
        found, failures = compare_with_fp32(quantised.precision, sample, verified.answers, answers)
        quantization = {**quantised.facts, **found}

    invariant = invariance(quantised.graph, sample.feeds, pad_id, answers)
    if invariant["mask_differences"] or invariant["label_differences"]:
        failures.append(
            f"{invariant['mask_differences']} mask positions and {invariant['label_differences']} labels change "
            "with batch, padding or threads"
        )

    in_float = quantised.facts is None or prepared.model.generator_in_float
    near_ties = measure_near_ties(onnx.load(quantised.graph), sample.feeds, in_float)

    return Shipped(quantization, invariant, near_ties, failures)


def compare_with_fp32(
    precision: str, sample: Sample, reference: Answers, answers: Answers
) -> tuple[dict[str, Any], list[str]]:
    """How a quantised graph compares with the fp32 one.

    Returns:
        The figures; and what is worse than is allowed. Generated inputs lie anywhere, so they say nothing about
        agreement on real ones, and nothing is refused.
    """
    found = agreement(reference, answers)
    measured: dict[str, Any] = found.to_dict()
    if sample.labels is None:
        return measured, []

    for name, side in (("fp32", reference), (precision, answers)):
        measured[f"accuracy_{name}"] = float((side.logits.argmax(axis=1) == sample.labels).mean())

    failures = []
    if found.mask_agreement < MASK_AGREEMENT:
        failures.append(f"{precision} masks agree with fp32 on {found.mask_agreement:.2%} of the features")

    # the difference of two accuracies on the same rows varies by at most the root of the labels that changed
    allowed = ACCURACY_LOSS + 2.0 * found.label_differences**0.5 / found.rows
    lost = measured["accuracy_fp32"] - measured[f"accuracy_{precision}"]
    if lost > allowed:
        failures.append(f"{precision} loses {lost:.2%} of accuracy")

    return measured, failures


def package(
    prepared: Prepared,
    verified: Verified,
    quantised: Quantised,
    shipped: Shipped,
    *,
    target: str,
    isa: str,
    force: bool,
    coverage: float | None = None,
) -> dict[str, Any]:
    """Write what belongs beside the graph, in its folder.

    Args:
        prepared: what the export reads.
        verified: the fp32 graph's check.
        quantised: the graph that ships.
        shipped: its check.
        target: where the bundle will run.
        isa: instruction set that it is meant for.
        force: write it even if a check failed.
        coverage: what the bundle promises; `COVERAGE` where None and there are enough rows that were set apart.

    Returns:
        The manifest.

    Raises:
        FailureError: a check failed, and the bundle is not forced.
    """
    folder = quantised.graph.parent
    tokenizer = prepared.preprocessing.tokenizer
    if tokenizer is not None:
        neutral_tokenizer(tokenizer).save(str(folder / LAYOUT.tokenizer))
    write_interchange_files(folder, prepared.model.config, prepared.preprocessing)

    target_check, unfit = check_target(onnx.load(quantised.graph), folder, target)
    failures = [*verified.failures, *shipped.failures, *unfit]
    if failures and not force:
        raise FailureError(f"The bundle failed its check: {'; '.join(failures)}. Nothing was written (see --force).")

    fields = {
        **_model_fields(prepared),
        "precision": quantised.precision,
        "target": target,
        "target_check": target_check,
        "isa": isa,
        "verified": not failures,
        "failures": failures,
        "parity": {"inputs": prepared.sample.source, **verified.parity},
        "quantization": shipped.quantization,
        "invariance": shipped.invariance,
        "near_ties": shipped.near_ties.to_dict(),
        "time_shares": stage_shares(quantised.graph, prepared.sample.feeds[:TIMED_ROWS], threads=1),
        "versions": versions("torch", "transformers", "onnx", "onnxruntime"),
        "provenance": provenance(prepared.run, prepared.record),
    }
    bundle_card(fields, prepared.record).save(folder / LAYOUT.card)
    write_manifest(folder, fields)
    if not failures:
        write_manifest(folder, {**fields, **_measured_on_the_bundle(folder, prepared, coverage)})

    return read_json(folder / LAYOUT.manifest)


def _measured_on_the_bundle(folder: Path, prepared: Prepared, coverage: float | None) -> dict[str, Any]:
    """`reference`: what it decides on validation data, for `monitor`; `conformal`: from where on it knows an answer."""
    rationalizer = Rationalizer.load(folder, threads=1, verify=False)
    fields: dict[str, Any] = {}

    if (unseen := prepared.unseen) is not None:
        answers = rationalizer([unseen.inputs[i] for i in range(min(REFERENCE_ROWS, len(unseen)))])
        fields["reference"] = summary(answer.to_dict() for answer in answers)

    apart = prepared.apart
    if apart is not None and coverage is None and len(apart) < rows_needed(COVERAGE):
        say(f"No coverage is promised: {len(apart)} rows were set apart, {COVERAGE} takes {rows_needed(COVERAGE)}.")
    elif apart is not None:
        scores = probabilities(rationalizer.predict_rows(list(apart.inputs)).logits)
        fields["conformal"] = conformal_promise(scores, apart.labels, COVERAGE if coverage is None else coverage)

    return fields


def _model_fields(prepared: Prepared) -> dict[str, Any]:
    """What a manifest says of the model and its run."""
    config = prepared.config
    preprocessing = {"image": config.image}

    if config.image is None:
        text = {"max_length": config.max_length, "special_token_ids": config.special_token_ids}
        preprocessing = {"text": {**text, "pad_token_id": config.pad_token_id}}

    return {
        "task": f"{config.task}-classification",
        "method": config.method,
        "labels": config.labels,
        "mask_mode": config.mask_mode,
        "target_ratio": config.target_ratio,
        "margin_bias": config.margin_bias,
        **prepared.model.extra_fields(),
        **preprocessing,
        "vocabulary": prepared.vocabulary,
        "graph": graph_io(prepared.model),
        "calibration": {"margin_bias": config.margin_bias, "rows": len(prepared.sample.calibration)},
        "metrics": RunFolder(prepared.run).read_metrics(),
    }

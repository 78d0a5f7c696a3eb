"""`rekd-edge export`: a finished run becomes a verified bundle, or nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from rekd_edge.data import DataSettings, Examples
from rekd_edge.errors import InputError
from rekd_edge.evaluation.conformal import check_coverage
from rekd_edge.export.stages import package, prepare, quantise, trace, verify, verify_shipped
from rekd_edge.files import check_output_folder, staged_folder
from rekd_edge.precisions import precision_of
from rekd_edge.progress import steps
from rekd_edge.runtime.bundle import LAYOUT

__all__ = ["export_bundle"]

ERRORS = 3  # as ONNX Runtime counts severities


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
    coverage: float | None = None,
) -> dict[str, Any]:
    """Export a run, check the graph against it, and write the bundle.

    Args:
        run: a finished run.
        output: a new folder.
        precision: a key of `rekd_edge.precisions.PRECISIONS`.
        target: `cpu`, `mobile` or `web`: what the bundle is checked for. The graph is the same for all of them.
        isa: instruction set that the bundle is meant for, for the manifest: int8 weights are right on all of them.
        calibration_data: SPEC whose train split calibrates and whose validation split verifies; by default the data
            of the run, and generated inputs where that is not at hand.
        data_settings: columns of the calibration data. Where it gives an `eval_limit`, so many rows are verified, and
            1,000 at most; otherwise also no more than 65,536 tokens or patches together.
        force: write the bundle even if its check fails; the manifest then says `"verified": false`.
        trim: leave out the word pieces that the training texts do not contain (see `trim_vocabulary`).
        coverage: how often the true label is to be among the possible ones (`Rationalizer.possible_labels`), promised
            from rows that the run set apart (`data.conformal_share`); 0.9 where there are such rows.

    Returns:
        The manifest.

    Raises:
        InputError: no finished run, a control, data of another kind, a taken output folder, an unknown precision, a
            vocabulary to trim that is no WordPiece or whose training texts are not at hand, or a coverage without rows
            to promise it from, or with too few.
        FailureError: the graph does not agree with the run; nothing is written.
    """
    check_output_folder(output)
    precision_of(precision)
    onnxruntime.set_default_logger_severity(ERRORS)  # it warns of the weights that quantisation leaves unused
    prepared = prepare(run, calibration_data, data_settings, trim)
    if coverage is not None:
        _check_coverage(run, coverage, prepared.apart)

    with staged_folder(output) as staging, steps("export") as step:
        step(0, 4, "tracing")
        traced = trace(prepared, staging / LAYOUT.graph)

        step(1, 4, f"checking {len(prepared.sample.feeds)} rows against the run")
        verified = verify(prepared, traced)

        step(2, 4, "writing the graph that ships")
        quantised = quantise(prepared, traced, precision)

        step(3, 4, "checking that answers depend on nothing else")
        shipped = verify_shipped(prepared, verified, quantised)

        step(4, 4)
        return package(prepared, verified, quantised, shipped, target=target, isa=isa, force=force, coverage=coverage)


def _check_coverage(run: Path, coverage: float, apart: Examples | None) -> None:
    """Refuse a promise that cannot be kept before anything is traced."""
    if apart is None:
        raise InputError(
            f"No rows of {run} are known to be set apart from everything that was chosen, so no coverage can be "
            "promised; train with --set data.conformal_share=0.2, and export with the run's own data settings."
        )

    check_coverage(coverage, len(apart))

"""Which int8 scheme is right and fast for a pipeline graph? Optimum's, ONNX Runtime's and ours, on one run.

    python benchmarks/schemes.py runs/student --data ../shared/data/imdb
    python benchmarks/schemes.py runs/student --data ../shared/data/imdb --sensitivity

Every scheme quantises the fp32 graph that the export writes. It is judged on validation rows by agreement with fp32, by
whether an answer changes with batch, padding or threads, and by time and size: one row at a time on one thread, all
schemes in turn. Results of before 2026-12 hold a second `target`, `web`: the same in standard ONNX operators alone.
`--sensitivity` adds ours with one part after another left exact. A scheme that cannot be built or run gets a reason.
"""

from __future__ import annotations

import argparse
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from _results import in_turn, percentiles, write_results
from datasets import Dataset
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantFormat
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig

from rekd_edge.data import load_data
from rekd_edge.export import int8, quantization
from rekd_edge.export.graph import export_graph
from rekd_edge.export.parity import Answers, Feed, agreement, graph_answers, invariance
from rekd_edge.export.quantization import quantize
from rekd_edge.export.sample import CALIBRATION_ROWS, single_rows
from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.progress import say
from rekd_edge.runs import RunFolder
from rekd_edge.runtime.session import open_session
from rekd_edge.training.configuration import load_config
from rekd_edge.training.preparation import preprocessing_of_run

FP32 = "fp32"
OPTIMUM = "Optimum dynamic avx512_vnni"
OURS = "ours mixed"
PRESETS = ("avx2", "avx512_vnni", "arm64")
QOPERATORS = ["MatMul", "Gather"]
"""The preset's list goes on with Add and others that are also done on integers here, and then breaks the graph."""
BLOCK = 32
WARM_UP = 5
IN_A_ROW = 3
"""Runs of a scheme at each turn: the first finds the caches full of another scheme's weights, as no device does."""
DECIDED = 0.1
"""Logit margin from which a label counts as decided: the top two probabilities differ by 5 points."""
QUANTILES = (0.5, 0.9, 1)
"""Of the logit margins that fp32 gives the rows whose label flips."""


@dataclass(frozen=True)
class Source:
    """The graph to quantise, alone in its folder, and what to calibrate on."""

    graph: Path
    calibration: list[Feed]

    def model(self) -> ModelProto:
        """A fresh copy."""
        return onnx.load(self.graph)


@dataclass(frozen=True)
class Rows:
    """What the schemes are judged on."""

    feeds: list[Feed]
    labels: NDArray[np.int64]
    pad_id: int


Scheme = Callable[[Source], ModelProto]


def main() -> None:
    """Write one row a scheme."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True, help="SPEC; settings are the run's")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rows", type=int, default=1000, help="of the validation split")
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--sensitivity", action="store_true", help="also ours with single parts left exact")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # the quantisers' advice
    model = RationaleModel.from_pretrained(given.run)
    rows, calibration = sample(given.run, given.data, given.settings, given.rows)
    every = {**schemes(), **(variants(model.config) if given.sensitivity else {})}

    with tempfile.TemporaryDirectory() as folder:
        found: dict[Path, dict[str, Any]] = {}
        source = Source(Path(folder, "source", "model.onnx"), calibration)
        source.graph.parent.mkdir()
        export_graph(model, source.graph)
        add_types(source.graph)
        reference = graph_answers(source.graph, rows.feeds, rows.pad_id)

        for name, scheme in every.items():
            path = Path(folder, f"{name}.onnx")
            found[path] = {"scheme": name, "target": "cpu", **judged(scheme, source, path, reference, rows)}
            say(shown(found[path]))

        add_times(found, rows.feeds, given.repeats)

    parts = {"method": model.config.method, "mask_mode": model.config.mask_mode, **depths(model.config)}
    write_results(f"schemes-{Path(given.data.rpartition(':')[2]).name}", list(found.values()), run=parts)


def schemes() -> dict[str, Scheme]:
    """What is there to choose from."""
    return {
        FP32: Source.model,
        **{f"Optimum dynamic {preset}": dynamic(preset, per_channel=False) for preset in PRESETS},
        **{f"Optimum dynamic {preset} per channel": dynamic(preset, per_channel=True) for preset in PRESETS},
        "Optimum static QDQ": static(QuantFormat.QDQ),
        "Optimum static QOperator": static(QuantFormat.QOperator),
        "MatMulNBits 8 bit": weight_only(8),
        "MatMulNBits 4 bit": weight_only(4),
        "ours row-wise": lambda source: quantize(source.model(), []),
        OURS: ours,
        f"{OURS}, float head": float_where(r"^model\.generator\.head"),
    }


def variants(config: RationaleConfig) -> dict[str, Scheme]:
    """Ours with one part left exact, to see what the error comes from."""
    last = "|".join(rf"^model\.{tower}\..*layers?\.{depth - 1}\b" for tower, depth in depths(config).items())
    parts = {
        "float generator": r"^model\.generator",
        "float predictor": r"^model\.predictor",
        "float first layers": r"layers?\.0\b",
        "float last layers": last,
        "float products": "",
    }
    return {
        **{f"{OURS}, {name}": float_where(pattern) for name, pattern in parts.items()},
        f"{OURS}, float tables": patched(quantization, "quantize_tables", lambda model: model),
        f"{OURS}, full-range weights": patched(int8, "LARGEST_PAIR", np.inf),
        f"{OURS}, no attention grid": patched(quantization, "value_projections", lambda *_: {}),
        f"{OURS}, exact Gelu": exact_gelu,
        f"{OURS}, predictor MatMulNBits 8 bit": predictor_in_blocks,
    }


def add_types(path: Path) -> None:
    """Say in a graph that contributed operators give floats, which Optimum's quantiser does not find out."""
    model = onnx.load(path)
    outputs = [name for node in model.graph.node if node.domain for name in node.output if name]
    model.graph.value_info.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    onnx.save(model, path)


def dynamic(preset: str, per_channel: bool) -> Scheme:
    """Optimum's preset for an instruction set."""

    def scheme(source: Source) -> ModelProto:
        config = getattr(AutoQuantizationConfig, preset)(is_static=False, per_channel=per_channel)
        with tempfile.TemporaryDirectory() as folder:
            return written(ORTQuantizer(source.graph).quantize(config, folder))

    return scheme


def static(form: QuantFormat) -> Scheme:
    """Optimum's static preset, calibrated by smallest and largest values."""

    def scheme(source: Source) -> ModelProto:
        config = AutoQuantizationConfig.avx512_vnni(is_static=True)
        if form is QuantFormat.QOperator:
            config.format, config.operators_to_quantize = form, QOPERATORS

        rows = Dataset.from_list([{name: value[0] for name, value in feed.items()} for feed in source.calibration])
        quantizer = ORTQuantizer(source.graph)

        with tempfile.TemporaryDirectory() as folder:
            ranges = quantizer.fit(
                rows,
                AutoCalibrationConfig.minmax(rows),
                onnx_augmented_model_name=str(Path(folder, "augmented.onnx")),
                operators_to_quantize=config.operators_to_quantize,
            )
            return written(quantizer.quantize(config, Path(folder, "written"), calibration_tensors_range=ranges))

    return scheme


def written(folder: Path) -> ModelProto:
    """The graph that Optimum left in a folder."""
    return onnx.load(next(Path(folder).glob("*.onnx")))


def weight_only(bits: int, pattern: str = "") -> Scheme:
    """Weights in blocks along the input, activations rounded to 8 bits inside the product, block by block."""

    def scheme(source: Source) -> ModelProto:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        model = source.model()
        others = [node.name for node in model.graph.node if not re.search(pattern, node.name)]
        quantizer = MatMulNBitsQuantizer(model, bits, BLOCK, True, accuracy_level=4, nodes_to_exclude=others)
        quantizer.process()

        return quantizer.model.model

    return scheme


def ours(source: Source) -> ModelProto:
    """What the export writes."""
    return quantize(source.model(), source.calibration)


def patched(place: Any, name: str, value: Any) -> Scheme:
    """Ours with something of the export's replaced."""

    def scheme(source: Source) -> ModelProto:
        with patch.object(place, name, value):
            return ours(source)

    return scheme


def float_where(pattern: str) -> Scheme:
    """Ours with the products whose names match left in float."""
    find = quantization.find_linears
    return patched(
        quantization,
        "find_linears",
        lambda model: [linear for linear in find(model) if not re.search(pattern, linear.name)],
    )


def exact_gelu(source: Source) -> ModelProto:
    """Ours with Gelu by the error function."""
    model = ours(source)
    for node in model.graph.node:
        node.op_type = "Gelu" if node.op_type == "FastGelu" else node.op_type
    return model


def predictor_in_blocks(source: Source) -> ModelProto:
    """Ours for the generator, weights in blocks for the predictor, which reads few rows where it drops the others."""
    return quantize(weight_only(8, r"^model\.predictor")(source), source.calibration)


def sample(run: Path, spec: str, settings: list[str], count: int) -> tuple[Rows, list[Feed]]:
    """Rows to judge on, and rows of the training split to calibrate on."""
    config = RationaleConfig.load(run)
    recorded = {f"data.{key}": value for key, value in RunFolder(run).read_record()["recipe"]["data"].items()}
    overrides = {**recorded, "data.spec": spec, **dict(setting.split("=", 1) for setting in settings)}
    data, preprocessing = load_data(spec, load_config(None, overrides).data), preprocessing_of_run(run, config)
    judge, train = data.split("validation"), data.split("train")
    judge = judge.select(range(min(count, len(judge))))
    chosen = np.random.default_rng(0).permutation(len(train))[:CALIBRATION_ROWS]
    feeds, calibration = (
        list(single_rows(preprocessing.features(each))) for each in (judge, train.select(sorted(chosen.tolist())))
    )

    return Rows(feeds, judge.labels, config.pad_token_id), calibration


def judged(scheme: Scheme, source: Source, path: Path, reference: Answers, rows: Rows) -> dict[str, Any]:
    """Write the scheme's graph; its agreement with fp32 and its invariance, or why there is none.

    `decision_error` is the mean move of a row's logit margin where its mask is the same, `selection_margin_error` the
    root mean square over features: with few flipped labels they tell schemes apart better than the labels do.
    """
    try:
        with unraised_paths(path.parent):
            onnx.save(scheme(source), path)
            answers = graph_answers(path, rows.feeds, rows.pad_id)
            invariant = invariance(path, rows.feeds, rows.pad_id)
    except RuntimeError as error:
        path.unlink(missing_ok=True)
        return {"failed": str(error)}

    found = asdict(agreement(reference, answers))
    kept = ("rows", "mask_agreement", "label_agreement", "label_differences", "largest_logit_difference")
    before, after = (side.logits.argmax(axis=1) for side in (reference, answers))
    decision, flipped, equal = decisions(reference, before), before != after, same(reference, answers)
    decided, margins, moved = decision > DECIDED, decision[flipped], np.abs(decision - decisions(answers, before))

    return {
        **{name: round(found[name], 6) for name in kept},
        "decided_label_agreement": round(1 - float((flipped & decided).sum() / max(decided.sum(), 1)), 6),
        "flipped_logit_margin": [round(float(each), 4) for each in np.quantile(margins, QUANTILES)]
        if margins.size
        else [],
        "selection_margin_error": root_mean_square(reference.margins, answers.margins),
        "decision_error": round(float(moved[equal].mean()), 5) if equal.any() else None,
        "accuracy": round(float((after == rows.labels).mean()), 4),
        "accuracy_difference": round(float((after == rows.labels).mean() - (before == rows.labels).mean()), 4),
        "invariance": {name: invariant[name] for name in ("mask_differences", "label_differences", "near_ties")},
        "bytes": path.stat().st_size,
    }


@contextmanager
def unraised_paths(folder: Path) -> Iterator[None]:
    """Whatever goes wrong, as one line that does not name the folder."""
    try:
        yield
    except Exception as error:  # the quantisers raise all kinds
        reason = (str(error).strip().splitlines() or [""])[0].replace(f"{folder}/", "")
        raise RuntimeError(f"{type(error).__name__}: {reason[:200]}") from error


def decisions(answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """How far each row's label lies above the best other class, [rows]."""
    chosen = np.take_along_axis(answers.logits, labels[:, None], axis=1)[:, 0]
    others = answers.logits.copy()
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    return chosen - others.max(axis=1)


def same(one: Answers, other: Answers) -> NDArray[np.bool_]:
    """Rows with equal masks."""
    return np.array([np.array_equal(a, b) for a, b in zip(one.masks, other.masks, strict=True)])


def root_mean_square(one: list[NDArray[np.float32]], other: list[NDArray[np.float32]]) -> float:
    """Of the difference of the features' margins."""
    a, b = np.concatenate(one), np.concatenate(other)
    feature = a > np.finfo(np.float32).min
    return round(float(np.sqrt(np.square(a[feature] - b[feature]).mean())), 5)


def add_times(found: dict[Path, dict[str, Any]], feeds: list[Feed], repeats: int) -> None:
    """Time every graph that ran, all in turn, and set it beside fp32 and Optimum's."""
    ran = [path for path, row in found.items() if "failed" not in row]
    systems = [runner(open_session(path, 1), feeds) for path in ran]
    in_turn(systems, WARM_UP)

    for path, times in zip(ran, in_turn(systems, repeats, [IN_A_ROW] * len(systems)), strict=True):
        found[path].update(percentiles(times))

    p50 = {row["scheme"]: row["p50_ms"] for row in found.values() if "p50_ms" in row}
    for path in ran:
        row = found[path]
        for name, reference in (("ratio_to_fp32", FP32), ("ratio_to_optimum", OPTIMUM)):
            other = p50.get(reference)
            row[name] = other and round(row["p50_ms"] / other, 4)
        say("{scheme}: {p50_ms:.2f} ms, {ratio_to_fp32} of fp32, {ratio_to_optimum} of Optimum".format(**row))


def runner(session: InferenceSession, feeds: list[Feed]) -> Callable[[int], Any]:
    """One row a turn."""
    return lambda turn: session.run(None, feeds[turn % len(feeds)])


def depths(config: RationaleConfig) -> dict[str, int]:
    """Layers of each tower."""
    towers = {"generator": config.generator, "predictor": config.predictor}
    return {name: tower["num_hidden_layers"] for name, tower in towers.items() if tower is not None}


def shown(row: dict[str, Any]) -> str:
    """A row of results in a line."""
    head = "{scheme}: ".format(**row)
    if "failed" in row:
        return f"{head}failed, {row['failed']}"

    return head + (
        "masks {mask_agreement:.2%}, labels {label_agreement:.2%}, accuracy {accuracy_difference:+.3f}, "
        "{invariance[mask_differences]} masks and {invariance[label_differences]} labels vary, {bytes:,} bytes"
    ).format(**row)


if __name__ == "__main__":
    main()

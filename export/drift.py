"""How far selection margins drift between runtimes, and how many features lie that close to the threshold.

Other processors and ONNX Runtime's other builds (WASM, aarch64) add the same products in another order. In float that
moves a margin by some units in the last place; in int8 such a difference can tip an activation over to the next
integer, which moves margins by a step. Here both are provoked: every float weight of the graph is changed at random by
about as much as rounding changes a sum, and the graph is asked again. tests/vectors holds the result against Node,
headless Chromium and aarch64; docs/decisions.md has the figures ("The band of near-ties").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from rekd_edge.export.parity import NEAR_TIE, Feed, near_ties

__all__ = ["NearTies", "measure_near_ties"]

MARGIN = "selection_margin"
RELATIVE = 2.0**-22
"""Of a weight: two units in the last place of float32."""
GRAPHS = 3
ROWS = 200
FATAL = 4
LOWEST = np.finfo(np.float32).min
"""The margin of what is no feature."""

Margins = list[NDArray[np.float32]]


@dataclass(frozen=True)
class NearTies:
    """The band of near-ties: outside it masks are equal in every runtime."""

    width: float
    """Margins and fallbacks this close to a tie may fall either way: 1e-5 where margins are computed in float, where
    only large ones drift further; otherwise `measured`, rounded up, and at least 1e-5."""
    measured: float
    """The largest drift of a margin."""
    rows: int
    features: int
    within: int
    """Features of these rows whose selection lies within the band."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {**asdict(self), "share": self.within / max(self.features, 1)}


def measure_near_ties(model: ModelProto, feeds: Sequence[Feed], in_float: bool) -> NearTies:
    """Ask a graph and disturbed copies of it.

    Args:
        model: the final graph of a bundle.
        feeds: verification rows, of which the first 200 are asked.
        in_float: the margins are computed in float.
    """
    rows = feeds[:ROWS]
    margins = _margins(model, rows)
    measured = max(_largest_drift(margins, _margins(disturbed(model, seed), rows)) for seed in range(GRAPHS))
    width = NEAR_TIE if in_float else max(NEAR_TIE, _rounded_up(measured))

    return NearTies(
        width=width,
        measured=measured,
        rows=len(rows),
        features=sum(int((margin > LOWEST).sum()) for margin in margins),
        within=sum(int((near_ties(margin, width) & (margin > LOWEST)).sum()) for margin in margins),
    )


def disturbed(model: ModelProto, seed: int) -> ModelProto:
    """A copy of which every float weight is larger or smaller by `RELATIVE`, at random; single numbers stay."""
    copy = ModelProto.FromString(model.SerializeToString())
    rng = np.random.default_rng(seed)

    for tensor in copy.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) > 1:
            values = numpy_helper.to_array(tensor)
            factors = 1.0 + RELATIVE * (2.0 * rng.integers(0, 2, values.shape) - 1.0)
            tensor.CopyFrom(numpy_helper.from_array((values * factors).astype(np.float32), tensor.name))

    return copy


def _margins(model: ModelProto, feeds: Sequence[Feed]) -> Margins:
    """Row by row: the margins, [positions]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = FATAL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    return [session.run([MARGIN], feed)[0][0] for feed in feeds]


def _largest_drift(reference: Margins, other: Margins) -> float:
    """Over all features."""
    drifts = (np.abs(a - b)[a > LOWEST] for a, b in zip(reference, other, strict=True))
    return max((float(drift.max(initial=0.0)) for drift in drifts), default=0.0)


def _rounded_up(value: float) -> float:
    """To two digits."""
    if value == 0.0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.1e}")

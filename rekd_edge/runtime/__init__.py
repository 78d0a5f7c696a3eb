"""The device side: open a bundle, preprocess, run, return label and rationale."""

from typing import Any

__all__ = ["ImagePrediction", "Rationalizer", "TextPrediction"]


def __getattr__(name: str) -> Any:
    """Import on first use: preprocessing alone (which training shares) need not load onnxruntime."""
    if name == "Rationalizer":
        from rekd_edge.runtime.rationalizer import Rationalizer

        return Rationalizer

    if name in ("ImagePrediction", "TextPrediction"):
        from rekd_edge.runtime import prediction

        return getattr(prediction, name)

    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

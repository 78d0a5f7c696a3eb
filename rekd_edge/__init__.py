"""REKD Edge: classifiers that show which words or patches they decide from, small enough for a device."""

from rekd_edge.errors import FailureError, InputError, RekdEdgeError

__version__ = "0.1.0"
__all__ = ["FailureError", "InputError", "Rationalizer", "RekdEdgeError", "__version__"]


def __getattr__(name: str) -> object:
    """Import `Rationalizer` on first use, so that `rekd_edge.errors` costs no onnxruntime import."""
    if name == "Rationalizer":
        from rekd_edge.runtime import Rationalizer

        return Rationalizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

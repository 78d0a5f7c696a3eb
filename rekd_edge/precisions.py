"""Every number format of a bundle by its name: what it is and where its code stands. Imports nothing heavy.

A precision is a quantisation scheme (a function in `rekd_edge.export`) and an entry here; docs/adding-a-precision.md
walks through one.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rekd_edge.errors import InputError

if TYPE_CHECKING:
    from rekd_edge.export.quantization import Scheme

__all__ = ["PRECISIONS", "Precision", "precision_of"]


@dataclass(frozen=True)
class Precision:
    """A number format."""

    summary: str
    """One line for the command line."""
    scheme: str | None = None
    """`module:function` of what quantises an fp32 graph, a `rekd_edge.export.quantization.Scheme`; None for fp32."""
    needs: str | None = None
    """A module that the scheme imports and the `export` extra does not install."""

    def load_scheme(self) -> Scheme | None:
        """The function that quantises, which imports onnx."""
        if self.scheme is None:
            return None

        module, _, name = self.scheme.partition(":")
        scheme: Scheme = getattr(import_module(module), name)
        return scheme


OPTIMUM = "optimum.onnxruntime"

PRECISIONS: dict[str, Precision] = {
    "fp32": Precision("as trained"),
    "int8": Precision("weights and activations in 8 bits", "rekd_edge.export.quantization:int8"),
    "optimum-arm64": Precision("Optimum's preset", "rekd_edge.export.presets:arm64", OPTIMUM),
    "optimum-avx2": Precision("Optimum's preset", "rekd_edge.export.presets:avx2", OPTIMUM),
    "optimum-avx512_vnni": Precision("Optimum's preset", "rekd_edge.export.presets:avx512_vnni", OPTIMUM),
}


def precision_of(name: str) -> Precision:
    """Look a precision up.

    Raises:
        InputError: there is none of that name, or what it needs is not installed.
    """
    if name not in PRECISIONS:
        raise InputError(f"There is no precision {name!r} in this version; choose one of {', '.join(PRECISIONS)}.")

    precision = PRECISIONS[name]
    if precision.needs is not None and not _is_installed(precision.needs):
        extra = precision.needs.partition(".")[0]
        raise InputError(
            f"Precision {name!r} needs {precision.needs}, which is not installed; install "
            f'"rekd-edge[export,{extra}]" in an environment of its own, or take --precision int8.'
        )
    return precision


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it is part of
        return False

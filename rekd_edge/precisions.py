"""Every number format of a bundle by its name: what it is and where its code stands. Imports nothing heavy.

A precision is a quantisation scheme (a function in `rekd_edge.export`) and an entry here; docs/adding-a-precision.md
walks through one.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
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

    def load_scheme(self) -> Scheme | None:
        """The function that quantises, which imports onnx."""
        if self.scheme is None:
            return None

        module, _, name = self.scheme.partition(":")
        scheme: Scheme = getattr(import_module(module), name)
        return scheme


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision("as trained"),
    "int8": Precision("weights and activations in 8 bits", "rekd_edge.export.quantization:int8"),
}


def precision_of(name: str) -> Precision:
    """Look a precision up.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PRECISIONS:
        raise InputError(f"There is no precision {name!r} in this version; choose one of {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]

"""Encoders, the selection layer and the rationale models: pure `torch.nn`, no training code."""

from rekd_edge.modeling.configuration import RationaleConfig
from rekd_edge.modeling.rationale import RationaleModel, RationaleOutput, Selection

__all__ = ["RationaleConfig", "RationaleModel", "RationaleOutput", "Selection"]

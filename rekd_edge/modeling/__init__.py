"""Encoders, the selection layer and the rationale models: pure `torch.nn`, no training code."""

from rekd_edge.modeling.configuration import RationaleConfig
from rekd_edge.modeling.model import Depth, RationaleModel, RationaleOutput, Sampling, Selection

__all__ = ["Depth", "RationaleConfig", "RationaleModel", "RationaleOutput", "Sampling", "Selection"]

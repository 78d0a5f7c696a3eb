"""Encoders by family, and the backbones that they start from."""

from rekd_edge.modeling.encoders.encoder import Encoder
from rekd_edge.modeling.encoders.registry import FAMILIES, build_encoder, encoder_from_backbone

__all__ = ["FAMILIES", "Encoder", "build_encoder", "encoder_from_backbone"]

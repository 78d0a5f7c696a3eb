"""Encoder families by name. A new one is a subclass of `Encoder` and an entry in `TRANSFORMERS` or `NETS`."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from rekd_edge.errors import InputError
from rekd_edge.modeling.encoders.backbones import NETS, backbone_from_config, refuse_foreign_code
from rekd_edge.modeling.encoders.encoder import Encoder
from rekd_edge.modeling.encoders.transformer import TRANSFORMERS

__all__ = ["FAMILIES", "build_encoder", "encoder_from_backbone"]

FAMILIES: dict[str, type[Encoder]] = {
    **TRANSFORMERS,
    **{family.net.config_class.model_type: family for family in NETS.values()},
}
"""Encoder families by the `model_type` of their configuration."""


def encoder_from_backbone(backbone: Any) -> Encoder:
    """Wrap a loaded backbone.

    Raises:
        InputError: the family is not known.
    """
    model_type = str(backbone.config.model_type)
    family = FAMILIES.get(model_type)
    if family is None:
        raise InputError(
            f"Encoders of the family {model_type!r} are not known; choose one of {', '.join(TRANSFORMERS)}."
        )

    return family(backbone)


def build_encoder(config: dict) -> Encoder:
    """Build an encoder with fresh weights from a saved configuration (as `PretrainedConfig.to_dict` gives it)."""
    refuse_foreign_code("The encoder of a run", config)
    fields = {key: value for key, value in config.items() if key != "model_type"}
    return encoder_from_backbone(backbone_from_config(AutoConfig.for_model(config["model_type"], **fields)))

"""A Hugging Face encoder taken apart where rationale extraction needs it: features, positions, layers.

A generator or predictor works in three steps, and the mask enters between them:

    X = encoder.embed(...)          # [batch, features, hidden]   what the mask zeroes
    H = encoder.assemble(X)         # [batch, positions, hidden]  plus position embeddings and class token
    H = encoder.layers(H, bias)     # [batch, positions, hidden]  with an additive attention bias

Adding a family means one subclass and one entry in `FAMILIES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from rekd_edge.errors import InputError
from rekd_edge.modeling.backbones import backbone_from_config

__all__ = ["Encoder", "build_encoder", "encoder_from_backbone"]


class Encoder(nn.Module, ABC):
    """One encoder; `prefix` positions stand before the first feature (the class token of a ViT)."""

    backbone: Any
    task: str
    prefix: int = 0
    renamed: tuple[tuple[str, str], ...] = ()
    """(name in transformers 5, name in checkpoints) where they differ; checkpoints keep the hub's names."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def config(self) -> PretrainedConfig:
        """The configuration of the wrapped backbone."""
        return self.backbone.config

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.config.hidden_size

    @abstractmethod
    def embed(self, inputs: Tensor) -> Tensor:
        """Token ids [batch, sequence] or pixels [batch, 3, H, W] to feature embeddings [batch, features, hidden]."""

    @abstractmethod
    def assemble(self, features: Tensor) -> Tensor:
        """Feature embeddings [batch, features, hidden] to the first layer's input [batch, positions, hidden]."""

    @abstractmethod
    def layer_stack(self) -> nn.ModuleList:
        """The transformer layers, first to last."""

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """Run the layers on [batch, positions, hidden] with an additive attention bias [batch, 1, 1, positions]."""
        for layer in self.layer_stack():
            output = layer(hidden, bias)
            hidden = output[0] if isinstance(output, tuple) else output  # a tuple before transformers 5
        return hidden

    @abstractmethod
    def embedding_modules(self) -> list[nn.Module]:
        """What `freeze_embeddings` freezes: the feature embeddings."""


class BertEncoder(Encoder):
    """BERT and the models that share its layout."""

    task = "text"

    def embed(self, inputs: Tensor) -> Tensor:
        return self.backbone.embeddings.word_embeddings(inputs)

    def assemble(self, features: Tensor) -> Tensor:
        return self.backbone.embeddings(inputs_embeds=features)

    def layer_stack(self) -> nn.ModuleList:
        return self.backbone.encoder.layer

    def embedding_modules(self) -> list[nn.Module]:
        return [self.backbone.embeddings.word_embeddings]


class ViTEncoder(Encoder):
    """ViT and DeiT without distillation token."""

    task = "image"
    prefix = 1
    renamed = (
        (r"\blayers\.(\d+)\.", r"encoder.layer.\1."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    )

    def embed(self, inputs: Tensor) -> Tensor:
        return self.backbone.embeddings.patch_embeddings(inputs)

    def assemble(self, features: Tensor) -> Tensor:
        embeddings = self.backbone.embeddings
        class_token = embeddings.cls_token.expand(features.shape[0], -1, -1)
        hidden = torch.cat([class_token, features], dim=1) + embeddings.position_embeddings
        return embeddings.dropout(hidden)

    def layer_stack(self) -> nn.ModuleList:
        if hasattr(self.backbone, "layers"):  # transformers 5
            return self.backbone.layers
        return self.backbone.encoder.layer

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        return self.backbone.layernorm(super().layers(hidden, bias))

    def embedding_modules(self) -> list[nn.Module]:
        return [self.backbone.embeddings.patch_embeddings]


FAMILIES: dict[str, type[Encoder]] = {"bert": BertEncoder, "roberta": BertEncoder, "vit": ViTEncoder}
"""Encoder families by the `model_type` of their Hugging Face configuration."""


def encoder_from_backbone(backbone: Any) -> Encoder:
    """Wrap a loaded backbone.

    Raises:
        InputError: the family is not known.
    """
    model_type = str(backbone.config.model_type)
    family = FAMILIES.get(model_type)
    if family is None:
        raise InputError(f"Encoders of the family {model_type!r} are not known; choose one of {', '.join(FAMILIES)}.")
    return family(backbone)


def build_encoder(config: dict) -> Encoder:
    """Build an encoder with fresh weights from a saved configuration (as `PretrainedConfig.to_dict` gives it)."""
    fields = {key: value for key, value in config.items() if key != "model_type"}
    return encoder_from_backbone(backbone_from_config(AutoConfig.for_model(config["model_type"], **fields)))

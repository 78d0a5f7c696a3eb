"""A Hugging Face encoder taken apart where rationale extraction needs it: features, positions, layers.

A generator or predictor works in four steps; the mask drops features after the first or zeroes them after the second:

    F = encoder.features(inputs)    # [batch, features, ...]      token ids, or the pixels of each patch
    X = encoder.embed(F)            # [batch, features, hidden]
    H = encoder.assemble(X, where)  # [batch, positions, hidden]  plus position embeddings and class token
    H = encoder.layers(H, bias)     # [batch, positions, hidden]  with an additive attention bias

Adding a family means one subclass and one entry in `FAMILIES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from rekd_edge.errors import InputError
from rekd_edge.modeling.backbones import backbone_from_config

__all__ = ["Encoder", "build_encoder", "encoder_from_backbone", "run_layers"]


class Encoder(nn.Module, ABC):
    """One encoder; `prefix` positions stand before the first feature (the class token of a ViT)."""

    backbone: Any
    task: str
    embedding_path: str
    """Where in the backbone the module lies that `embedding` gives."""
    prefix: int = 0
    renamed: tuple[tuple[str, str], ...] = ()
    """(name in transformers 5, name in checkpoints) where they differ; checkpoints keep the hub's names."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self._lent: tuple[nn.Module, ...] = ()  # in a tuple, so that its weights are saved with their owner alone

    @property
    def config(self) -> PretrainedConfig:
        """The configuration of the wrapped backbone."""
        return self.backbone.config

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.config.hidden_size

    def features(self, inputs: Tensor) -> Tensor:
        """Token ids [batch, sequence] as they are, or pixels [batch, 3, H, W] cut into [batch, features, pixels]."""
        return inputs

    @abstractmethod
    def embed(self, features: Tensor) -> Tensor:
        """Features as `features` gives them to embeddings [batch, features, hidden]."""

    @abstractmethod
    def assemble(self, embeddings: Tensor, where: Tensor | None = None) -> Tensor:
        """Feature embeddings [batch, features, hidden] to the first layer's input [batch, positions, hidden].

        `where` int64 [batch, features] gives the place of each feature in its input, where some were left out.
        """

    @abstractmethod
    def layer_stack(self) -> nn.ModuleList:
        """The transformer layers, first to last."""

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """Run the layers on [batch, positions, hidden] with an additive attention bias [batch, 1, 1, positions]."""
        return self.finish(run_layers(self.layer_stack(), hidden, bias))

    def finish(self, hidden: Tensor) -> Tensor:
        """What stands after the last layer."""
        return hidden

    @property
    def embedding(self) -> Any:
        """The module that turns features into embeddings: the table of word pieces, or the projection of patches."""
        return self._lent[0] if self._lent else self.backbone.get_submodule(self.embedding_path)

    def share_embedding(self, owner: Encoder) -> None:
        """Embed with another encoder's module in place of one's own, whose weights go.

        Raises:
            InputError: the encoders differ in width.
        """
        if owner.hidden_size != self.hidden_size:
            raise InputError(
                f"A generator of width {self.hidden_size} cannot share the embeddings of a predictor of width "
                f"{owner.hidden_size}; set share_embeddings=false."
            )
        self.backbone.set_submodule(self.embedding_path, nn.Identity())
        self._lent = (owner.embedding,)


class BertEncoder(Encoder):
    """BERT and the models that share its layout."""

    task = "text"
    embedding_path = "embeddings.word_embeddings"

    def embed(self, features: Tensor) -> Tensor:
        return self.embedding(features)

    def assemble(self, embeddings: Tensor, where: Tensor | None = None) -> Tensor:
        module = self.backbone.embeddings
        first = getattr(module, "padding_idx", -1) + 1  # RoBERTa counts positions from the one after its padding id
        # one table of what a place adds: a constant of the graph
        places = module.position_embeddings.weight[first:] + module.token_type_embeddings.weight[0]
        if where is None:
            where = torch.arange(embeddings.shape[1], device=embeddings.device)
        return module.dropout(module.LayerNorm(embeddings + places[where]))

    def layer_stack(self) -> nn.ModuleList:
        return self.backbone.encoder.layer


class ViTEncoder(Encoder):
    """ViT and DeiT without distillation token."""

    task = "image"
    embedding_path = "embeddings.patch_embeddings.projection"
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

    def features(self, inputs: Tensor) -> Tensor:
        side = self.config.patch_size
        batch, channels, rows, columns = inputs.shape
        cut = inputs.reshape(batch, channels, rows // side, side, columns // side, side)
        return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def embed(self, features: Tensor) -> Tensor:
        projection = self.embedding  # a convolution without overlap is a product
        return nn.functional.linear(features, projection.weight.flatten(1), projection.bias)

    def assemble(self, embeddings: Tensor, where: Tensor | None = None) -> Tensor:
        module = self.backbone.embeddings
        class_position, positions = module.position_embeddings.split([1, module.position_embeddings.shape[1] - 1], 1)
        if where is not None:
            positions = positions[0][where]
        class_token = (module.cls_token + class_position).expand(embeddings.shape[0], -1, -1)
        return module.dropout(torch.cat([class_token, embeddings + positions], dim=1))

    def layer_stack(self) -> nn.ModuleList:
        if hasattr(self.backbone, "layers"):  # transformers 5
            return self.backbone.layers
        return self.backbone.encoder.layer

    def finish(self, hidden: Tensor) -> Tensor:
        return self.backbone.layernorm(hidden)


def run_layers(layers: Iterable[nn.Module], hidden: Tensor, bias: Tensor | None) -> Tensor:
    """Some of an encoder's layers, one after the other; arguments as of `Encoder.layers`."""
    for layer in layers:
        output = layer(hidden, bias)
        hidden = output[0] if isinstance(output, tuple) else output  # a tuple before transformers 5
    return hidden


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

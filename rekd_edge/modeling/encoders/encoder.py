"""An encoder in the steps that rationale extraction needs: features, embeddings, positions, layers, pooling.

The mask drops features after the first step, or zeroes their embeddings after the second:

    F = encoder.features(inputs)    # [batch, features, ...]      token ids, or the pixels of each patch
    X = encoder.embed(F)            # [batch, features, hidden]
    H = encoder.assemble(X, where)  # [batch, positions, hidden]  plus position embeddings and class token
    H = encoder.layers(H, bias)     # [batch, positions, hidden]  with an additive attention bias
    h = encoder.pool(H, visible)    # [batch, hidden]             predictors only
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig

from rekd_edge.errors import InputError

__all__ = ["Encoder", "cut_patches", "mean_of_visible", "project_patches"]

FLOOR = 1e-2
"""Added to the variance of a pooled mean, so that the gradient of the mask stays bounded when little is visible."""


class Encoder(nn.Module, ABC):
    """An encoder with `prefix` positions before the first feature (the class token of a ViT)."""

    backbone: Any
    task: str
    can_drop: bool = True
    """Whether the layers can run on a subset of the features; false if leaving one out changes its neighbours."""
    net: Any = None
    """The module of a family that is given as `FAMILY:BACKBONE`; None where transformers has it."""
    recurrent: bool = False
    """Whether it holds an LSTM."""
    embedding_path: str
    """Path within the backbone of the module that `embedding` returns."""
    prefix: int = 0
    max_length: int | None = None
    """The most positions of a text that will ever be read; None for all that the backbone has."""
    reads_predictor: bool = False
    """Whether, as a generator, it reads the predictor's embeddings instead of embeddings of its own."""
    recompute: bool = False
    """Gradient checkpointing: keep only the input of each layer for the backward pass."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(name in transformers 5, name in checkpoints) of weights that differ; checkpoints keep the names of the hub."""

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

    @property
    def embedding_size(self) -> int:
        """Width of the embeddings, before anything projects them."""
        return self.hidden_size

    def features(self, inputs: Tensor) -> Tensor:
        """Token ids [batch, sequence] unchanged, or pixels [batch, 3, H, W] cut into [batch, features, pixels]."""
        return inputs

    @abstractmethod
    def embed(self, features: Tensor) -> Tensor:
        """Embed the output of `features`: [batch, features, hidden]."""

    @abstractmethod
    def assemble(self, embeddings: Tensor, where: Tensor | None = None) -> Tensor:
        """Feature embeddings [batch, features, hidden] to the first layer's input [batch, positions, hidden].

        `where` int64 [batch, features] holds the original position of each feature if some were left out.
        """

    @abstractmethod
    def layer_stack(self) -> nn.ModuleList:
        """The layers, first to last."""

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """Run the layers on [batch, positions, hidden] with an additive attention bias [batch, 1, 1, positions]."""
        return self.finish(self.run(self.layer_stack(), hidden, bias))

    def run(self, layers: Iterable[nn.Module], hidden: Tensor, bias: Tensor | None) -> Tensor:
        """Run the given layers in order; arguments as for `layers`."""
        for layer in layers:
            output = self.step(layer, hidden, bias)
            hidden = output[0] if isinstance(output, tuple) else output  # a tuple before transformers 5
        return hidden

    def step(self, layer: Callable[..., Any], *inputs: Any) -> Any:
        """Run one layer; recomputation repeats the same dropout draws."""
        if self.recompute and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    def skip_final_norm(self) -> None:
        """Leave out the normalisation after the last layer.

        Raises:
            InputError: encoders of this family have none.
        """
        raise InputError("This backbone normalises nothing after its last layer; leave final_norm out.")

    def finish(self, hidden: Tensor) -> Tensor:
        """Apply what follows the last layer."""
        return hidden

    def pool(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """Pool [batch, positions, hidden] to what a classifier reads, [batch, hidden]: by default the first position.

        `visible` floats [batch, features] are 1 where the predictor may look; gradients of the mask may flow through.
        """
        return hidden[:, 0]

    @property
    def embedding(self) -> Any:
        """The module that embeds features: the word embedding table, or the projection of patches."""
        return self._lent[0] if self._lent else self.backbone.get_submodule(self.embedding_path)

    def share_embedding(self, owner: Encoder) -> None:
        """Use the embedding module of another encoder and discard the own one.

        Raises:
            InputError: the encoders differ in width.
        """
        if owner.embedding_size != self.embedding_size:
            raise InputError(
                f"A generator of width {self.embedding_size} cannot share the embeddings of a predictor of width "
                f"{owner.embedding_size}; set share_embeddings=false."
            )

        self.backbone.set_submodule(self.embedding_path, nn.Identity())
        self._lent = (owner.embedding,)


def mean_of_visible(hidden: Tensor, visible: Tensor, width: int) -> Tensor:
    """The normalised mean [batch, width] of [batch, features, width], weighted by `visible` [batch, features]."""
    weights = torch.stack([visible, visible], dim=1).to(hidden.dtype)  # [batch, 2, features]
    # two rows and not one: products with a single row sum in an order that depends on the padding
    total = (weights @ hidden)[:, 0]
    mean = total / visible.sum(dim=1, keepdim=True).clamp(min=1.0)
    return nn.functional.layer_norm(mean, [width], eps=FLOOR)


def cut_patches(pixels: Tensor, side: int) -> Tensor:
    """Pixels [batch, channels, H, W] to [batch, patches, channels · side · side], the grid row by row."""
    batch, channels, rows, columns = pixels.shape
    cut = pixels.reshape(batch, channels, rows // side, side, columns // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def project_patches(patches: Tensor, projection: nn.Conv2d) -> Tensor:
    """Patches as `cut_patches` gives them to [batch, patches, hidden]: a convolution without overlap is a product."""
    return nn.functional.linear(patches, projection.weight.flatten(1), projection.bias)

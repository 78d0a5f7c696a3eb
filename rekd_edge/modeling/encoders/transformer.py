"""Transformer encoders of the BERT, RoBERTa and ViT families."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rekd_edge.modeling.encoders.encoder import Encoder, cut_patches, project_patches

__all__ = ["BertEncoder", "ViTEncoder"]


class BertEncoder(Encoder):
    """BERT and the models that share its layout."""

    task = "text"
    embedding_path = "embeddings.word_embeddings"

    def embed(self, features: Tensor) -> Tensor:
        return self.embedding(features)

    def assemble(self, embeddings: Tensor, where: Tensor | None = None) -> Tensor:
        module = self.backbone.embeddings
        first = getattr(module, "padding_idx", -1) + 1  # RoBERTa counts positions from the one after its padding id
        # one table of what a place adds: a constant of the graph, no longer than a text may be
        places = module.position_embeddings.weight[first:][: self.max_length] + module.token_type_embeddings.weight[0]

        if where is None:
            where = torch.arange(embeddings.shape[1], device=embeddings.device)

        return module.dropout(module.LayerNorm(embeddings + nn.functional.embedding(where, places)))

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
        return cut_patches(inputs, self.config.patch_size)

    def embed(self, features: Tensor) -> Tensor:
        return project_patches(features, self.embedding)

    def assemble(self, embeddings: Tensor, where: Tensor | None = None) -> Tensor:
        module = self.backbone.embeddings
        positions = module.position_embeddings[:, 1:]
        if where is not None:
            positions = nn.functional.embedding(where, positions[0])
        class_token = (module.cls_token + module.position_embeddings[:, :1]).expand(embeddings.shape[0], -1, -1)
        return module.dropout(torch.cat([class_token, embeddings + positions], dim=1))

    def layer_stack(self) -> nn.ModuleList:
        if hasattr(self.backbone, "layers"):  # transformers 5
            return self.backbone.layers
        return self.backbone.encoder.layer

    def skip_final_norm(self) -> None:
        self.backbone.layernorm = nn.Identity()

    def finish(self, hidden: Tensor) -> Tensor:
        return self.backbone.layernorm(hidden)


TRANSFORMERS: dict[str, type[Encoder]] = {"bert": BertEncoder, "roberta": BertEncoder, "vit": ViTEncoder}
"""Families of transformers by the `model_type` of their configuration."""

"""Tiny models of every family, with weights far enough from zero that what a layer sees shows in what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.modeling.encoders import encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import load_backbone

GEOMETRY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "initializer_range": 0.3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
FAMILIES = {
    "bert": {"vocab_size": 50, "max_position_embeddings": 24, "pad_token_id": 0},
    "roberta": {"vocab_size": 50, "max_position_embeddings": 26, "pad_token_id": 1, "type_vocab_size": 1},
    "vit": {"image_size": 12, "patch_size": 4},
}
DONORS = {"bilstm": "bert", "cnn": "roberta", "resnet": "vit"}
"""Families of other nets, and whose features each reads here."""
CLS, SEP = 2, 3


@pytest.fixture(scope="session")
def config_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder that holds nothing but the tiny `config.json` of a transformer family."""

    def write(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        (folder / "config.json").write_text(json.dumps({"model_type": family, **GEOMETRY, **FAMILIES[family]}))
        return folder

    return write


@pytest.fixture(scope="session")
def make_spec(config_folder: Callable[[str], Path]) -> Callable[[str], str]:
    """The tiny backbone of any family, as `--backbone` names it."""

    def make(family: str) -> str:
        return f"{family}:{config_folder(DONORS[family])}" if family in DONORS else str(config_folder(family))

    return make


@pytest.fixture(scope="session")
def make_model(make_spec: Callable[[str], str]) -> Callable[..., RationaleModel]:
    """A rationale model in `eval()`: 2 predictor layers, 1 generator layer, 3 labels, the same weights each time.

    `drop-mean` drops what is not selected and classifies from the mean of the rest.
    """

    def make(family: str, mask_mode: str = "zero", method: str = "re", **fields: Any) -> RationaleModel:
        torch.manual_seed(0)
        spec, donor = make_spec(family), DONORS.get(family, family)
        image = donor == "vit"
        predictor = encoder_from_backbone(load_backbone(spec, layers=2))
        generator = None if method in ("cls", "control") else encoder_from_backbone(load_backbone(spec, layers=1))
        config = RationaleConfig(
            task="image" if image else "text",
            method=method,
            labels=["a", "b", "c"],
            predictor=predictor.config.to_dict(),
            generator=None if generator is None else generator.config.to_dict(),
            head_hidden=None if image else 16,
            head_dropout=0.0,
            mask_mode=mask_mode.removesuffix("-mean"),
            pooling="mean" if mask_mode.endswith("-mean") else "first",
            target_ratio=0.3,
            max_length=None if image else 24,
            special_token_ids=[] if image else [CLS, SEP],
            pad_token_id=0 if image else FAMILIES[donor]["pad_token_id"],
        )
        for name, value in fields.items():
            setattr(config, name, value)
        return RationaleModel(config, predictor, generator).eval()

    return make


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., dict[str, Tensor]]:
    """Model inputs: texts of the given lengths in tokens, [CLS] and [SEP] included (0 is padding alone), or images."""

    def make(family: str, lengths: tuple[int, ...] = (9, 5, 3), width: int | None = None) -> dict[str, Tensor]:
        random, donor = torch.Generator().manual_seed(1), DONORS.get(family, family)
        if donor == "vit":
            return {"pixel_values": torch.randn(len(lengths), 3, 12, 12, generator=random)}
        shape = len(lengths), width or max(*lengths, 1)
        words = torch.randint(4, 50, (len(lengths), 24), generator=random)
        input_ids = torch.full(shape, FAMILIES[donor]["pad_token_id"])
        for row, length in zip(range(len(lengths)), lengths, strict=True):
            if length:
                input_ids[row, :length] = torch.tensor([CLS, *words[row, : length - 2].tolist(), SEP])
        attention_mask = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).long()
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    return make

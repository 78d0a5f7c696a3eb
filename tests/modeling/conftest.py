"""Tiny models of every family, with weights far enough from zero that what a layer sees shows in what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rekd_edge.modeling import Depth, RationaleConfig, RationaleModel
from rekd_edge.modeling.encoders import encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import load_backbone
from rekd_edge.modeling.plmr import PLMRModel
from rekd_edge.training.objectives.plmr import Settings

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
FOUR_SELECT = Depth(None, 4)


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


@pytest.fixture(scope="session")
def deep_folder(config_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A family's tiny `config.json` with six layers."""

    def write(family: str, layers: int = 6) -> Path:
        fields = json.loads((config_folder(family) / "config.json").read_text())
        folder = tmp_path_factory.mktemp(f"deep-{family}")
        (folder / "config.json").write_text(json.dumps({**fields, "num_hidden_layers": layers}))
        return folder

    return write


@pytest.fixture(scope="session")
def make_plmr(
    deep_folder: Callable[..., Path], make_batch: Callable[..., dict[str, Tensor]]
) -> Callable[..., PLMRModel]:
    """A model in `eval()`: 1 layer of the whole input, 3 that prune, 2 that decide; each step sheds about a quarter."""

    def make(
        family: str,
        mask_mode: str = "zero",
        depth: Depth = FOUR_SELECT,
        settings: dict[str, Any] | None = None,
        layers: int = 6,
        **fields: Any,
    ) -> PLMRModel:
        torch.manual_seed(0)
        folder, image = str(deep_folder(family, layers)), family == "vit"
        facts = RationaleConfig(
            task="image" if image else "text",
            method="plmr",
            labels=["a", "b", "c"],
            predictor={},
            head_dropout=0.0,
            mask_mode=mask_mode,
            target_ratio=0.3,
            max_length=None if image else 24,
            special_token_ids=[] if image else [2, 3],
            pad_token_id=1 if family == "roberta" else 0,
        )
        for name, value in fields.items():
            setattr(facts, name, value)
        options = Settings(**({"full_layers": 1} if settings is None else settings))
        model = PLMRModel.build(facts, lambda kept: encoder_from_backbone(load_backbone(folder, kept)), depth, options)
        with torch.no_grad():
            model.generator.head[-1].weight.copy_(torch.randn(model.generator.head[-1].weight.shape))
        model.eval()
        batch = make_batch(family, (24, 24, 24))
        model.calibrate(
            lambda: [model.select(batch.get("input_ids", batch.get("pixel_values")), batch.get("attention_mask"))],
            shed_a_quarter,
        )
        return model

    return make


@torch.no_grad()
def shed_a_quarter(found: list[tuple[Tensor, Tensor, Tensor]], *how: Any) -> float:
    return -float(found[0][0][found[0][2]].quantile(0.257))  # between two margins

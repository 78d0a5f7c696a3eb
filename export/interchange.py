"""The small files by which Optimum, transformers' pipelines and transformers.js open a bundle as any classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from rekd_edge.modeling import RationaleConfig
from rekd_edge.training.preparation import Preprocessing

__all__ = ["write_interchange_files"]


def write_interchange_files(folder: Path, config: RationaleConfig, preprocessing: Preprocessing) -> None:
    """Write `config.json`, and `tokenizer_config.json` or `preprocessor_config.json`.

    They hold nothing that our own runtimes read: those take the manifest. A predictor of a family that transformers
    doesn't know gets none of them.

    Args:
        folder: the bundle's.
        config: the model's.
        preprocessing: that of the model.
    """
    family = config.predictor["model_type"]
    if family not in CONFIG_MAPPING_NAMES:  # without the families that this package registers
        return

    _write(folder / "config.json", _model_config(config, family))
    if preprocessing.tokenizer is not None:
        _write(folder / "tokenizer_config.json", _tokenizer_config(preprocessing))
    else:
        preprocessing.save(folder)


def _model_config(config: RationaleConfig, family: str) -> dict[str, Any]:
    labels = dict(enumerate(config.labels))
    sizes = {name: value for name, value in config.predictor.items() if isinstance(value, bool | int | float)}
    return {
        **sizes,
        "model_type": family,
        "problem_type": "single_label_classification",
        "id2label": labels,
        "label2id": {label: i for i, label in labels.items()},
        "pad_token_id": config.pad_token_id,
    }


def _tokenizer_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """A fast tokenizer that only pads; text that spells a special token stays text."""
    assert preprocessing.tokenizer is not None
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": preprocessing.max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": preprocessing.tokenizer.id_to_token(preprocessing.pad_token_id),
        "padding_side": "right",
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }


def _write(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

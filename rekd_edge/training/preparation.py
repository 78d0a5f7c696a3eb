"""From settings to what a trainer needs: preprocessing, features, and a model with its first weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from rekd_edge.data import (
    DataSource,
    Examples,
    ImageCollator,
    ImageFeatures,
    TextCollator,
    TextFeatures,
    train_tokenizer,
    word_starts,
)
from rekd_edge.errors import InputError
from rekd_edge.methods import method_of
from rekd_edge.modeling import Depth, RationaleConfig, RationaleModel
from rekd_edge.modeling.encoders import Encoder, encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import (
    backbone_config,
    backbone_image_settings,
    backbone_tokenizer,
    load_backbone,
)
from rekd_edge.modeling.towers import Generator
from rekd_edge.runs.layout import PROCESSOR_FILE, TOKENIZER_FILE, RunFolder
from rekd_edge.runtime.image import ImageSettings
from rekd_edge.runtime.text import limit_tokenizer, load_tokenizer, special_token_ids
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.teacher import TeacherFacts

__all__ = [
    "Preprocessing",
    "build_model",
    "load_encoder",
    "model_config",
    "prepare_preprocessing",
    "preprocessing_of_run",
]

TRAINED_VOCABULARY = 8000
TEXT_HEAD_HIDDEN = 256
"""Hidden width of the selection head on text, as in the published code; images have a linear head."""


@dataclass(frozen=True)
class Preprocessing:
    """How raw inputs become features; exactly one of `tokenizer` and `image` is set."""

    tokenizer: Tokenizer | None = None
    max_length: int | None = None
    image: ImageSettings | None = None

    @property
    def pad_token_id(self) -> int:
        """The id that fills a batch up; 0 where the tokenizer names none."""
        if self.tokenizer is None:
            return 0
        found = (self.tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>"))
        return next((i for i in found if i is not None), 0)

    def features(self, examples: Examples, augment: bool = False) -> TextFeatures | ImageFeatures:
        """One split as a data set of features."""
        if self.image is not None:
            return ImageFeatures(examples, self.image, augment)
        assert self.tokenizer is not None
        return TextFeatures(examples, self.tokenizer)

    def collator(self, pad_to_max_length: bool = False) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
        """What puts examples into a batch."""
        if self.image is not None:
            return ImageCollator()
        return TextCollator(self.pad_token_id, self.max_length if pad_to_max_length else None)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` or `preprocessor_config.json` into a run folder."""
        if self.tokenizer is not None:
            self.tokenizer.save(str(folder / TOKENIZER_FILE))
        elif self.image is not None:
            processor = {
                "image_processor_type": "ViTImageProcessor",
                "do_resize": True,
                "size": {"height": self.image.height, "width": self.image.width},
                "resample": self.image.resample,
                "do_rescale": True,
                "rescale_factor": self.image.rescale_factor,
                "do_normalize": True,
                "image_mean": list(self.image.mean),
                "image_std": list(self.image.std),
            }
            (folder / PROCESSOR_FILE).write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")


def prepare_preprocessing(config: TrainingConfig, data: DataSource, teachers: list[TeacherFacts]) -> Preprocessing:
    """The preprocessing that belongs to the backbone.

    A backbone without a tokenizer takes its teacher's, or one trained on the training texts.

    Raises:
        InputError: the backbone reads another modality than the data holds.
    """
    backbone = backbone_config(config.backbone)
    reads = "image" if hasattr(backbone, "patch_size") else "text"
    if reads != data.task:
        raise InputError(f"The backbone {config.backbone} reads {reads}, the data {config.spec} is {data.task}.")
    if data.task == "image":
        return Preprocessing(image=backbone_image_settings(config.backbone, backbone, config.data.image_size))

    tokenizer = backbone_tokenizer(config.backbone)
    if tokenizer is None and teachers and teachers[0].config.task == "text":
        tokenizer = load_tokenizer(RunFolder(teachers[0].folder).tokenizer_file, config.data.max_length)
    if tokenizer is None:
        tokenizer = train_tokenizer([str(text) for text in data.split("train").inputs], TRAINED_VOCABULARY)

    return Preprocessing(limit_tokenizer(tokenizer, config.data.max_length), config.data.max_length)


def preprocessing_of_run(folder: Path, config: RationaleConfig) -> Preprocessing:
    """The preprocessing that a finished run was trained with.

    Raises:
        InputError: its tokenizer is missing.
    """
    if config.image is not None:
        return Preprocessing(image=ImageSettings.from_dict(config.image))

    file = RunFolder(folder).tokenizer_file
    if not file.is_file() or config.max_length is None:
        raise InputError(f"{folder} holds no {TOKENIZER_FILE}; restore it or train the run again.")

    tokenizer = Tokenizer.from_file(str(file))
    return Preprocessing(limit_tokenizer(tokenizer, config.max_length), config.max_length)


def model_config(config: TrainingConfig, data: DataSource, preprocessing: Preprocessing) -> RationaleConfig:
    """What the model to be trained will know of itself, encoders left out.

    Raises:
        InputError: the method does not read this kind of data, words are to be selected where there are none, or
            `class_ratios` names an unknown label.
    """
    method = method_of(config.method)
    if data.task not in method.tasks:
        raise InputError(f"{config.method} reads {' and '.join(method.tasks)}, {config.spec} is {data.task}; use re.")

    text = preprocessing.tokenizer is not None
    if config.select_words and not text:
        raise InputError("select_words joins the pieces of a word; images have none, leave it out.")

    ratios = config.ratios(tuple(data.label_names))
    target_ratio = config.target_ratio if method.has_ratio else 1.0

    if config.class_ratios and method.has_ratio:  # a mask is made before the label is known: their mean
        target_ratio = float(np.mean([ratios[label] for label in data.split("train").labels]))

    assert target_ratio is not None
    assert config.head_dropout is not None
    return RationaleConfig(
        task=data.task,
        method=config.method,
        labels=list(data.label_names),
        predictor={},
        head_hidden=_head_hidden(config) if text else None,
        head_dropout=config.head_dropout,
        mask_mode=config.mask_mode,
        pooling=config.pooling,
        final_norm=config.final_norm,
        share_embeddings=config.share_embeddings and method.selects,
        select_words=config.select_words and method.selects,
        min_selected=config.min_selected,
        max_selected=config.max_selected,
        options={"class_ratios": ratios} if config.class_ratios else {},
        target_ratio=target_ratio,
        count_all_positions=config.count_all_positions and text,
        max_length=preprocessing.max_length,
        special_token_ids=special_token_ids(preprocessing.tokenizer) if preprocessing.tokenizer is not None else [],
        pad_token_id=preprocessing.pad_token_id,
        image=None if preprocessing.image is None else preprocessing.image.to_dict(),
    )


def _head_hidden(config: TrainingConfig) -> int:
    """Hidden width of the selection head on text: no wider than the generator that it reads."""
    return min(TEXT_HEAD_HIDDEN, config.generator_width) if config.generator == "local" else TEXT_HEAD_HIDDEN


def load_encoder(
    backbone: str, layers: int | None, preprocessing: Preprocessing, net: dict[str, Any] | None = None
) -> Encoder:
    """A backbone's first layers, all where None, fit to its preprocessing; `net` as of `load_backbone`."""
    image_size = None if preprocessing.image is None else preprocessing.image.height
    vocabulary = None if preprocessing.tokenizer is None else preprocessing.tokenizer.get_vocab_size()
    return encoder_from_backbone(load_backbone(backbone, layers, image_size, preprocessing.max_length, vocabulary, net))


def build_model(config: TrainingConfig, facts: RationaleConfig, tokenizer: Tokenizer | None) -> RationaleModel:
    """A model with the backbone's weights in its encoders and fresh heads.

    Args:
        config: the resolved run.
        facts: from `model_config`; the encoders' configurations are filled in.
        tokenizer: None for images.

    Raises:
        InputError: the method's settings and the backbone do not fit.
    """
    image = None if facts.image is None else ImageSettings.from_dict(facts.image)
    preprocessing = Preprocessing(tokenizer, facts.max_length, image)

    def encoder(layers: int | None, family: str | None = None) -> Encoder:
        if family is None:
            return load_encoder(config.backbone, layers, preprocessing)
        local = {"hidden_size": config.generator_width, "context": config.generator_context}
        net = local if family == "local" else None
        return load_encoder(f"{family}:{config.backbone}", layers, preprocessing, net)

    depth = Depth(config.layers, config.generator_layers, config.generator)

    model = method_of(config.method).model_class().build(facts, encoder, depth, config.options)
    if config.initial_ratio is not None and isinstance(model.generator, Generator):
        model.generator.begin_at(config.initial_ratio)

    if model.starts_word is not None:
        assert tokenizer is not None
        starts = word_starts(tokenizer)
        model.starts_word[: len(starts)] = torch.from_numpy(starts)

    return model

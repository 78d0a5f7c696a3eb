"""Where encoders come from: a hub name, a local folder (with or without weights), `random:NAME`, or `FAMILY:BACKBONE`
for a net of another family on that backbone's features."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig
from transformers.utils import logging

from rekd_edge.errors import InputError
from rekd_edge.modeling.encoders.convolutional import CNNEncoder, ResNetEncoder
from rekd_edge.modeling.encoders.encoder import Encoder
from rekd_edge.modeling.encoders.local import LocalEncoder
from rekd_edge.modeling.encoders.recurrent import BiLSTMEncoder
from rekd_edge.modeling.encoders.transformer import TRANSFORMERS
from rekd_edge.runtime.image import ImageSettings

__all__ = [
    "RANDOM_BACKBONES",
    "backbone_config",
    "backbone_from_config",
    "backbone_image_settings",
    "backbone_tokenizer",
    "load_backbone",
    "refuse_foreign_code",
]


def _bert(hidden: int, layers: int, **overrides: Any) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": 4 * hidden,
        **overrides,
    }


def _vit(hidden: int, layers: int, **overrides: Any) -> dict[str, Any]:
    return {**_bert(hidden, layers), "model_type": "vit", "image_size": 224, "patch_size": 16, **overrides}


_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

RANDOM_BACKBONES: dict[str, dict[str, Any]] = {
    "bert-nano": _bert(64, 2, num_attention_heads=4, **_NO_DROPOUT),
    "bert-micro": _bert(64, 4, num_attention_heads=4, **_NO_DROPOUT),
    "bert-tiny": _bert(128, 2),
    "bert-mini": _bert(256, 4),
    "bert-small": _bert(512, 4),
    "bert-base": _bert(768, 12),
    "vit-nano": _vit(64, 2, num_attention_heads=4, image_size=8, patch_size=1),
    "vit-micro": _vit(64, 4, num_attention_heads=4, image_size=8, patch_size=1),
    "vit-tiny": _vit(192, 12),
    "vit-small": _vit(384, 12),
    "vit-base": _vit(768, 12),
}
"""Geometries for `random:NAME`: the published BERT and ViT sizes, and four small enough for a laptop demonstration.

`vit-nano` and `vit-micro` see an 8x8 image pixel by pixel."""


NETS: dict[str, type[Encoder]] = {
    "bilstm": BiLSTMEncoder,
    "cnn": CNNEncoder,
    "resnet": ResNetEncoder,
    "local": LocalEncoder,
}
"""Families of `FAMILY:BACKBONE`."""


def backbone_config(name: str) -> PretrainedConfig:
    """Read a backbone's configuration without its weights.

    Raises:
        InputError: nothing by that name can be found or read, or a net of that family cannot take its features.
    """
    family, donor = _donor(name)
    if family is not None:
        return _net_config(family, donor)

    if name.startswith("random:"):
        geometry = RANDOM_BACKBONES.get(name.removeprefix("random:"))
        if geometry is None:
            raise InputError(f"{name!r} is not a known geometry; choose from {', '.join(RANDOM_BACKBONES)}.")
        return AutoConfig.for_model(**geometry)

    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        raise InputError(f"{name} holds no config.json; give --backbone a model folder or a hub name.")

    try:
        fields, _ = PretrainedConfig.get_config_dict(name)
        refuse_foreign_code(name, fields)
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"The backbone {name!r} cannot be read ({_first_line(error)}); give --backbone a hub name, "
            f"a local model folder, random:NAME, or one of these after {', '.join(f'{family}:' for family in NETS)}."
        ) from error


def refuse_foreign_code(name: str, fields: dict[str, Any]) -> None:
    """Refuse a configuration that names Python code of its own, which transformers would import.

    Raises:
        InputError: it has an `auto_map`.
    """
    if "auto_map" in fields:
        raise InputError(
            f"{name} names Python code of its own (auto_map), which rekd-edge never runs; give a backbone of a family "
            "that transformers has."
        )


def _donor(name: str) -> tuple[str | None, str]:
    """The family and the backbone of `FAMILY:BACKBONE`; None and the name itself where it is a backbone's own."""
    family, _, donor = name.partition(":")
    return (family, donor) if family in NETS else (None, name)


def _net_config(family: str, name: str) -> PretrainedConfig:
    donor, net = backbone_config(name), NETS[family].net
    if donor.model_type not in net.donors:
        fitting = [f"{other}:{name}" for other in NETS if donor.model_type in NETS[other].net.donors]
        raise InputError(
            f"A {family} takes its features from a {' or '.join(net.donors)} backbone, and {name} is of the family "
            f"{donor.model_type!r}; give --backbone {' or '.join(fitting) or f'{family}: and such a backbone'}."
        )

    return net.config_for(donor)


def load_backbone(
    name: str,
    layers: int | None = None,
    image_size: int | None = None,
    max_length: int | None = None,
    vocabulary: int | None = None,
    net: dict[str, Any] | None = None,
) -> nn.Module:
    """Load an encoder, keep its first layers, and fit its position embeddings to the input.

    Position embeddings are interpolated (bicubic on the patch grid, linear along the text) where the pretraining's
    image size or length differs from what is asked for.

    Args:
        name: hub name, local folder, or `random:NAME`; a folder without weights gives random weights. With a family
            before it, its embeddings alone are taken.
        layers: how many of the first layers to keep, all by default; how many a net of another family has.
        image_size: height and width in pixels that the encoder will see.
        max_length: tokens that the encoder must bear.
        vocabulary: size of the tokenizer; an encoder with random weights takes it as its own.
        net: fields of the configuration of a net of another family, in place of its defaults.

    Raises:
        InputError: unknown name, more layers than there are, weights damaged or missing, a vocabulary too large for
            pretrained weights.
    """
    if _donor(name)[0] is not None:
        return _load_net(name, layers, image_size, vocabulary, net or {})

    pretrained = backbone_config(name)
    wanted = _fitted_config(name, pretrained, layers, image_size, max_length)

    if not _has_weights(name):
        if vocabulary is not None:
            wanted.vocab_size = vocabulary
        return backbone_from_config(wanted)

    if vocabulary is not None and vocabulary > getattr(wanted, "vocab_size", 0):
        raise InputError(
            f"The tokenizer of {name} has {vocabulary} entries, its weights {wanted.vocab_size}; "
            "use the tokenizer that it was pretrained with."
        )

    backbone = backbone_from_config(wanted)
    weights = _pretrained_weights(name, pretrained, wanted.num_hidden_layers)
    fitted = {key: _fit_positions(weights[key], tensor) for key, tensor in backbone.state_dict().items()}
    backbone.load_state_dict(fitted)

    return backbone


def _fitted_config(
    name: str, pretrained: PretrainedConfig, layers: int | None, image_size: int | None, max_length: int | None
) -> PretrainedConfig:
    """A backbone's configuration, changed to the layers and inputs that are asked for."""
    wanted = copy.deepcopy(pretrained)

    if layers is not None:
        if not 1 <= layers <= pretrained.num_hidden_layers:
            raise InputError(f"{name} has {pretrained.num_hidden_layers} layers; {layers} cannot be kept of them.")
        wanted.num_hidden_layers = layers

    if image_size is not None and hasattr(wanted, "image_size"):
        wanted.image_size = image_size

    if max_length is not None and hasattr(wanted, "max_position_embeddings"):
        # RoBERTa counts positions from after its padding id
        first = 1 + int(wanted.pad_token_id or 0) if wanted.model_type == "roberta" else 0
        wanted.max_position_embeddings = max(wanted.max_position_embeddings, max_length + first)

    return wanted


def _pretrained_weights(name: str, config: PretrainedConfig, layers: int) -> dict[str, Tensor]:
    """Weights of the first `layers` of a backbone in float32, by name.

    Raises:
        InputError: they are damaged or incomplete, or a pickle that holds more than tensors.
    """
    config = copy.deepcopy(config)
    config.num_hidden_layers = layers

    try:
        with _without_load_report():
            source, report = AutoModel.from_pretrained(
                name,
                config=config,
                add_pooling_layer=False,
                dtype=torch.float32,
                attn_implementation="sdpa",
                output_loading_info=True,
                trust_remote_code=False,
                weights_only=True,
            )
    except UnpicklingError as error:  # its own sentence advises to load the file all the same
        raise InputError(
            f"The weights of {name!r} are a pickle with more than tensors in it, which is not loaded; give a folder "
            "with model.safetensors."
        ) from error
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        raise InputError(f"The weights of {name!r} cannot be loaded ({_first_line(error)}); restore them.") from error

    if report["missing_keys"]:
        raise InputError(f"The weights of {name!r} lack {sorted(report['missing_keys'])[0]}; give a whole checkpoint.")

    return source.state_dict()


def _load_net(
    name: str, layers: int | None, image_size: int | None, vocabulary: int | None, fields: dict[str, Any]
) -> nn.Module:
    """A net with random weights on its donor's embeddings, which are random where the donor has no weights."""
    config, (_, donor) = backbone_config(name), _donor(name)
    config.update(fields)

    if layers is not None:
        if layers < 1:
            raise InputError(f"{name} needs a layer at least; {layers} are none.")
        config.num_hidden_layers = layers

    if image_size is not None and hasattr(config, "image_size"):
        config.image_size = image_size

    if not _has_weights(donor):
        if vocabulary is not None:
            config.vocab_size = vocabulary
        return backbone_from_config(config)

    source: Any = load_backbone(donor, 1, vocabulary=vocabulary)
    net: Any = backbone_from_config(config)
    net.embedding.load_state_dict(
        source.get_submodule(TRANSFORMERS[source.config.model_type].embedding_path).state_dict()
    )

    return net


def backbone_from_config(config: PretrainedConfig) -> nn.Module:
    """Build a float32 encoder with random weights, without a pooler, on PyTorch's fused attention."""
    for family in NETS.values():
        if isinstance(config, family.net.config_class):
            return family.net(config)

    try:  # the configuration's own dtype would be taken
        return AutoModel.from_config(
            config, add_pooling_layer=False, attn_implementation="sdpa", trust_remote_code=False
        ).float()
    except (TypeError, ValueError) as error:
        raise InputError(f"{config.model_type} encoders cannot be built here: {_first_line(error)}") from error


def backbone_tokenizer(name: str) -> Tokenizer | None:
    """The tokenizer that belongs to a backbone, or None where it has none (one is then trained on the data)."""
    _, name = _donor(name)
    if name.startswith("random:"):
        return None

    folder = Path(name)
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    if folder.is_dir() and not any((folder / file).is_file() for file in ("vocab.txt", "vocab.json", "spiece.model")):
        return None

    try:
        return AutoTokenizer.from_pretrained(name, use_fast=True, trust_remote_code=False).backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{name!r} has no fast tokenizer ({_first_line(error)}); use one with a tokenizer.json."
        ) from error


def backbone_image_settings(name: str, config: PretrainedConfig, image_size: int | None) -> ImageSettings:
    """How images are prepared for a backbone: its own processor's settings, at `image_size` or the config's size."""
    size = image_size or config.image_size
    settings: dict[str, Any] = {
        "height": size,
        "width": size,
        "patch_size": config.patch_size,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }

    file = _processor_file(_donor(name)[1])
    if file is not None:
        saved = json.loads(file.read_text(encoding="utf-8"))
        names = {"resample": "resample", "rescale_factor": "rescale_factor", "mean": "image_mean", "std": "image_std"}
        settings.update({ours: saved[theirs] for ours, theirs in names.items() if theirs in saved})

    return ImageSettings.from_dict(settings)


def _processor_file(name: str) -> Path | None:
    if name.startswith("random:"):
        return None

    if Path(name).is_dir():
        file = Path(name) / "preprocessor_config.json"
        return file if file.is_file() else None

    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(name, "preprocessor_config.json"))
    except EntryNotFoundError:
        return None


def _has_weights(name: str) -> bool:
    if name.startswith("random:"):
        return False
    folder = Path(name)
    return not folder.is_dir() or any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _fit_positions(weight: Tensor, wanted: Tensor) -> Tensor:
    """Resize a table of position embeddings to the wanted length; every other tensor passes unchanged."""
    if weight.shape == wanted.shape:
        return weight

    if weight.dim() == 3:  # ViT: [1, 1 + rows·columns, hidden], the class token first
        old, new = math.isqrt(weight.shape[1] - 1), math.isqrt(wanted.shape[1] - 1)
        grid = weight[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
        return torch.cat([weight[:, :1], grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)], dim=1)

    line = nn.functional.interpolate(weight.T[None], size=wanted.shape[0], mode="linear", align_corners=False)
    return line[0].T  # text: [positions, hidden]


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Silence the list of weights that were left out on purpose: pooler, heads, later layers."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__

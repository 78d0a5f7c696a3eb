"""What a saved model knows about itself: `config.json` of a run."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from rekd_edge.errors import InputError
from rekd_edge.files import read_json
from rekd_edge.methods import method_of
from rekd_edge.runtime.image import ImageSettings
from rekd_edge.settings import Count, Ratio, Share, one_sentence, shown

__all__ = ["RationaleConfig"]

LARGEST_CONFIG = 1 << 24
"""Bytes of a `config.json`; that of a large backbone with a thousand labels has a hundred thousand."""
LARGEST_SIDE = 4096
"""Pixels of an image."""

Label = Annotated[str, Field(max_length=1024)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]

# What of an encoder's geometry is built or looped over, and more of it than any published encoder has.
_GEOMETRY = {
    "hidden_size": 65_536,
    "embedding_size": 65_536,
    "intermediate_size": 262_144,
    "num_hidden_layers": 1024,
    "num_attention_heads": 1024,
    "max_position_embeddings": 262_144,
    "vocab_size": 2**24,
    "type_vocab_size": 1024,
    "image_size": LARGEST_SIDE,
    "patch_size": LARGEST_SIDE,
    "num_channels": 64,
}


@dataclass(config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class RationaleConfig:
    """Geometry and selection rule of a rationale model; everything that inference needs besides the weights."""

    task: Literal["text", "image"]
    """`text` or `image`."""
    method: str
    """The training method, of `METHODS`; `control` is a predictor of random masks."""
    labels: list[Label]
    predictor: dict[str, Any]
    """Configuration of the predictor's encoder, as Hugging Face writes it."""
    generator: dict[str, Any] | None = None
    """The generator's encoder; None where no generator selects (`cls` and `control`)."""
    head_hidden: Count | None = None
    """Width of the hidden layer of the selection head; None for a single linear layer."""
    head_dropout: Share = 0.1
    mask_mode: Literal["zero", "drop"] = "zero"
    """`zero`: unselected embeddings are zeroed (the paper); `drop`: excluded from the predictor's attention."""
    pooling: Literal["first", "mean"] = "first"
    """What the predictor's classifier reads: the `first` position, or the `mean` of what is visible."""
    final_norm: bool = True
    """Whether the predictor of a ViT normalises its last hidden states before they are read."""
    share_embeddings: bool = False
    """Generator and predictor read one table of word pieces (text) or one projection of patches (images)."""
    select_words: bool = False
    """All pieces of a word share one decision."""
    min_selected: Count = 1
    """Fewest features of a rationale (all where there are not as many)."""
    max_selected: Count | None = None
    """Most features of a rationale."""
    options: dict[str, Any] = field(default_factory=dict)
    """What inference needs of the method's own settings."""
    target_ratio: Ratio = 1.0
    margin_bias: float = 0.0
    """Calibrated on dev data, added to z_1 - z_0."""
    count_all_positions: bool = False
    """The published code's counting: L is the padded length, padding and special tokens are sampled in training."""
    max_length: Count | None = None
    """Tokens of a text, special tokens included; None for images."""
    special_token_ids: list[TokenId] = field(default_factory=list)
    """The tokens that the tokenizer itself adds: never features, always visible to the predictor."""
    pad_token_id: TokenId = 0
    image: dict[str, Any] | None = None
    """Image preprocessing (`ImageSettings`); None for text."""

    @property
    def selects(self) -> bool:
        """Whether the method learns which features to select."""
        return method_of(self.method).selects

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> RationaleConfig:
        """Read `config.json` of a run folder.

        Raises:
            InputError: not a run, one written by another program, or a value that no run has.
        """
        file = folder / "config.json"
        if not file.is_file():
            raise InputError(f"{folder} is not a finished run: it holds no config.json; give the --output of a train.")

        if file.stat().st_size > LARGEST_CONFIG:
            raise InputError(f"{file} is larger than any that train writes; give the --output of a train.")

        try:
            config = cls(**read_json(file))
            config._check()
        except (ValidationError, InputError, TypeError) as error:
            reason = one_sentence(cls, error) if isinstance(error, ValidationError) else str(error)
            raise InputError(f"{file} was not written by rekd-edge train: {reason}") from error

        return config

    def _check(self) -> None:
        """Refuse values that do not go together, or that would ask for more than any machine has.

        Raises:
            InputError: as said.
        """
        method_of(self.method)
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise InputError("labels must be at least two different ones.")

        for name in ("predictor", "generator"):
            if (tower := getattr(self, name)) is not None:
                _check_geometry(name, tower)

        if self.image is not None:
            settings = ImageSettings.from_dict(self.image)
            if max(settings.height, settings.width) > LARGEST_SIDE:
                raise InputError(f"an image of {settings.height} x {settings.width} pixels is larger than is read.")

        vocabulary, places = (self.predictor.get(key) for key in ("vocab_size", "max_position_embeddings"))
        if vocabulary is not None and max([self.pad_token_id, *self.special_token_ids]) >= vocabulary:
            raise InputError(f"a token id is not in the vocabulary of {vocabulary}.")
        if places is not None and self.max_length is not None and self.max_length > places:
            raise InputError(f"max_length {self.max_length} is beyond the {places} positions of the predictor.")


def _check_geometry(name: str, tower: dict[str, Any]) -> None:
    if not isinstance(tower.get("model_type"), str):
        raise InputError(f"{name}.model_type must be a text.")
    if tower.get("chunk_size_feed_forward", 0) != 0:  # transformers would refuse lengths that are no multiple of it
        raise InputError(f"{name}.chunk_size_feed_forward must be 0.")

    for key, largest in _GEOMETRY.items():
        value = tower.get(key)
        if key in tower and not (type(value) is int and 1 <= value <= largest):
            raise InputError(f"{name}.{key} must be a whole number from 1 to {largest}, not {shown(value)}.")

"""What a saved model knows about itself: `config.json` of a run."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.methods import method_of

__all__ = ["RationaleConfig"]


@dataclass
class RationaleConfig:
    """Geometry and selection rule of a rationale model; everything that inference needs besides the weights."""

    task: str
    """`text` or `image`."""
    method: str
    """The training method, of `METHODS`; `control` is a predictor of random masks."""
    labels: list[str]
    predictor: dict[str, Any]
    """Configuration of the predictor's encoder, as Hugging Face writes it."""
    generator: dict[str, Any] | None = None
    """The generator's encoder; None where no generator selects (`cls` and `control`)."""
    head_hidden: int | None = None
    """Width of the hidden layer of the selection head; None for a single linear layer."""
    head_dropout: float = 0.1
    mask_mode: str = "zero"
    """`zero`: unselected embeddings are zeroed (the paper); `drop`: excluded from the predictor's attention."""
    pooling: str = "first"
    """What the predictor's classifier reads: the `first` position, or the `mean` of what is visible."""
    final_norm: bool = True
    """Whether the predictor of a ViT normalises its last hidden states before they are read."""
    share_embeddings: bool = False
    """Generator and predictor read one table of word pieces (text) or one projection of patches (images)."""
    select_words: bool = False
    """All pieces of a word share one decision."""
    min_selected: int = 1
    """Fewest features of a rationale (all where there are not as many)."""
    max_selected: int | None = None
    """Most features of a rationale."""
    options: dict[str, Any] = field(default_factory=dict)
    """What inference needs of the method's own settings."""
    target_ratio: float = 1.0
    margin_bias: float = 0.0
    """Calibrated on dev data, added to z_1 - z_0."""
    count_all_positions: bool = False
    """The published code's counting: L is the padded length, padding and special tokens are sampled in training."""
    max_length: int | None = None
    """Tokens of a text, special tokens included; None for images."""
    special_token_ids: list[int] = field(default_factory=list)
    """The tokens that the tokenizer itself adds: never features, always visible to the predictor."""
    pad_token_id: int = 0
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
            InputError: not a run, or one written by another program.
        """
        file = folder / "config.json"
        if not file.is_file():
            raise InputError(f"{folder} is not a finished run: it holds no config.json; give the --output of a train.")

        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            return cls(**fields)
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
            raise InputError(f"{file} was not written by rekd-edge train; give the --output of a train.") from error

"""Which file of a run folder holds what.

RUN/
    config.json               the model's configuration
    model.safetensors         its weights
    tokenizer.json            how texts become tokens; `preprocessor_config.json` for images
    training.json             settings, data, versions and the figures of every epoch
    README.md                 the model card
    metrics.json              figures on dev data; written last, so it marks a finished run
    control/                  the control that a warm start begins from, a run laid out likewise
    control-descent/          a control that the run is compared with, likewise
    control-fixed/            the same
    checkpoints/              until the run is finished
        recipe.json           the settings that were asked for
        sources.json          digests of the data, the teachers and the control
        checkpoint-STEP/      written by the Trainer
        predictor/            checkpoints of the stage that trains the predictor alone
teacher-targets/              beside the runs: what teachers say of training data, computed anew where missing
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.files import read_json

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "METRICS_FILE",
    "MODEL_FILE",
    "PROCESSOR_FILE",
    "RECORD_FILE",
    "TARGETS",
    "TOKENIZER_FILE",
    "RunFolder",
]

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
PROCESSOR_FILE = "preprocessor_config.json"
RECORD_FILE = "training.json"
METRICS_FILE = "metrics.json"
CARD_FILE = "README.md"
TARGETS = "teacher-targets"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one training run, finished or not."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The model's configuration."""
        return self.path / CONFIG_FILE

    @property
    def model_file(self) -> Path:
        """The model's weights."""
        return self.path / MODEL_FILE

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer of a text run."""
        return self.path / TOKENIZER_FILE

    @property
    def record_file(self) -> Path:
        """Settings, data, versions and the figures of every epoch."""
        return self.path / RECORD_FILE

    @property
    def metrics_file(self) -> Path:
        """Figures on dev data."""
        return self.path / METRICS_FILE

    @property
    def card_file(self) -> Path:
        """The model card."""
        return self.path / CARD_FILE

    def control(self, name: str) -> RunFolder:
        """One of the controls that were trained for this run."""
        return RunFolder(self.path / name)

    @property
    def checkpoints(self) -> Path:
        """What an unfinished run resumes from."""
        return self.path / "checkpoints"

    @property
    def recipe_file(self) -> Path:
        """The settings that an unfinished run was started with."""
        return self.checkpoints / "recipe.json"

    @property
    def sources_file(self) -> Path:
        """Digests of what an unfinished run is trained from."""
        return self.checkpoints / "sources.json"

    @property
    def targets(self) -> Path:
        """Stores of teacher targets, shared by the runs of one folder."""
        return self.path.parent / TARGETS

    @property
    def is_finished(self) -> bool:
        """Whether training ended and everything was written."""
        return self.metrics_file.is_file()

    def read_metrics(self, role: str = "run") -> dict[str, Any]:
        """The figures of a finished run on dev data.

        Args:
            role: what the run is to the caller, for the sentence of the error: `teacher`, `control`.

        Raises:
            InputError: the run is unfinished, or the file is damaged.
        """
        if not self.is_finished:
            raise InputError(f"The {role} {self.path} has no {METRICS_FILE}; finish its training with --resume.")
        return read_json(self.metrics_file)

    def read_record(self) -> dict[str, Any]:
        """Settings, data, versions and epochs of a finished run.

        Raises:
            InputError: the file is missing or damaged.
        """
        return read_json(self.record_file)

    def read_recipe(self) -> dict[str, Any]:
        """The settings that the run was started with, finished or not.

        Raises:
            InputError: they are missing or damaged.
        """
        return self.read_record()["asked"] if self.is_finished else read_json(self.recipe_file)

"""Settings that learn from the data at hand within a time, and what they will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rekd_edge.builder.facts import Facts
from rekd_edge.modeling.encoders.backbones import backbone_config

__all__ = ["Plan", "make_plan"]

QUICK_HOURS = 0.2
DEFAULT_HOURS = 2.0
BATCH = 32
PIECES_PER_WORD = 1.3
LEAST_STEPS, MOST_EPOCHS = 150, 12
"""A student that takes fewer steps has seen nothing; one that sees a few rows more often learns them by heart."""
STUDENT_LAYERS = {"text": 2, "image": 6}
TEACHER_LAYERS = {"text": 3, "image": 9}
GENERATOR_LAYERS = {"text": 1, "image": 2}
RATIO = {"text": 0.10, "image": 0.15}
IMAGE_SIZE = 96
SHORTEST = 48
"""Texts are not cut below this many tokens to save time."""
EFFICIENCY = 0.3
"""Share of a matrix product's speed that a training step is taken to reach: a cautious guess, not a measurement."""
FORWARD_AND_BACKWARD = 6
"""Operations a weight and token."""


@dataclass(frozen=True)
class Plan:
    """A grid, and what it will take."""

    grid: dict[str, Any]
    hours: float
    memory_gib: float
    sentences: tuple[str, ...]
    """Why the settings are what they are."""


def make_plan(facts: Facts, spec: str, backbone: str, hours: float, data: dict[str, Any]) -> Plan:
    """Choose sizes, lengths and steps by what the data is and how long it may take.

    Args:
        facts: of the data.
        spec: the data SPEC.
        backbone: a pretrained encoder.
        hours: on this machine, about.
        data: settings of the data that the user gave.

    Raises:
        InputError: the backbone cannot be found.
    """
    config = backbone_config(backbone)
    deepest = int(config.num_hidden_layers)
    student = min(STUDENT_LAYERS[facts.task], deepest)
    teacher = min(TEACHER_LAYERS[facts.task], deepest)

    speed = _operations_per_second()
    wanted = _tokens(facts, config)
    tokens = _affordable(
        wanted, lambda tokens: LEAST_STEPS * _passes(teacher / student) * _step(config, tokens, student, speed), hours
    )
    a_step = _step(config, tokens, student, speed)

    rows = facts.rows["train"]
    steps, rows_used = _steps(rows, hours * 3600, a_step, teacher / student)
    epochs = max(1, round(steps / max(1, rows_used / BATCH)))
    pretrained = not backbone.startswith("random:")

    settings = {
        "data.spec": spec,
        **{f"data.{name}": value for name, value in (_size(facts, config, tokens) | data).items()},
        "backbone": backbone,
        "target_ratio": RATIO[facts.task],
        "initial_ratio": RATIO[facts.task],
        "mask_mode": "drop",
        "batch_size": BATCH,
        "learning_rate": 3e-4 if pretrained else 1e-3,
        "head_learning_rate": 3e-3 if facts.task == "image" else 1e-3,
        "adam_beta2": 0.95,
        "lr_scheduler": "linear",
        "warmup_ratio": 0.1,
        "temperature_refresh": 10,
        "warm_start": True,
        "comparison_control": "descent",
        "predictor_epochs": 1,
        "control_epochs": max(1, epochs // 2),
        "epochs": epochs,
    }
    if facts.task == "text":
        settings |= {"pooling": "mean", "head_dropout": 0.1} | ({"freeze_embeddings": "all"} if pretrained else {})
    else:
        settings |= {"kd_temperature": 1.0}
    if rows_used < rows:
        settings["data.train_limit"] = rows_used

    grid = {
        "title": f"{spec}: a small explainable classifier",
        "settings": settings,
        "methods": {"cls": {"epochs": 2 * epochs}, "re": {}, "rekd": {"generator": "local"}},
        "rows": {
            "teacher": {"methods": ["re"], "layers": teacher, "generator_layers": GENERATOR_LAYERS[facts.task]},
            "student": {
                "methods": ["cls", "rekd"],
                "layers": student,
                "generator_layers": GENERATOR_LAYERS[facts.task],
                "teacher": "teacher",
            },
        },
    }
    expected = _passes(teacher / student) * epochs * rows_used / BATCH * a_step / 3600
    unit = "tokens" if facts.task == "text" else "patches"
    why = (
        f"{rows_used:,} of {rows:,} training rows of {tokens} {unit}, {epochs} times {rows_used // BATCH or 1} steps",
        f"a teacher of {teacher} layers, and a student of {student} whose generator is local and selects "
        f"{RATIO[facts.task]:.0%}",
    )
    return Plan(grid, expected, _memory(config, tokens, teacher), why)


def _tokens(facts: Facts, config: Any) -> int:
    """Tokens that nine in ten texts fit into, or patches and the class token of an image."""
    if facts.words is None:
        return (_side(config) // int(config.patch_size)) ** 2 + 1

    longest = int(getattr(config, "max_position_embeddings", 512))
    return int(np.clip(16 * np.ceil((facts.words[1] * PIECES_PER_WORD + 2) / 16), 32, min(256, longest)))


def _affordable(tokens: int, seconds: Callable[[int], float], hours: float) -> int:
    """The longest texts, in steps of 16 tokens, of which the least number of steps fits into the time."""
    while tokens > SHORTEST and seconds(tokens) > 3600 * hours:
        tokens -= 16
    return tokens


def _size(facts: Facts, config: Any, tokens: int) -> dict[str, Any]:
    """The setting that makes inputs of so many tokens, or images of their size."""
    return {"image_size": _side(config)} if facts.words is None else {"max_length": tokens}


def _side(config: Any) -> int:
    return min(IMAGE_SIZE, int(config.image_size))


def _steps(rows: int, seconds: float, a_step: float, depth: float) -> tuple[int, int]:
    """Steps of an epoch budget that fits, and how many rows it sees."""
    affordable = max(LEAST_STEPS, int(seconds / (a_step * _passes(depth))))
    rows_used = min(rows, max(BATCH, affordable * BATCH // 3))  # each at least three times
    most = MOST_EPOCHS * max(1, rows_used // BATCH)
    return min(affordable, most), rows_used


def _passes(depth: float) -> float:
    """All trainings in epochs of the student: teacher and controls (2.5 each), CLS (2), controls (1.5), REKD (1.2)."""
    return 2.5 * depth + 2 + 1.5 + 1.2


def _step(config: Any, tokens: int, layers: int, speed: float) -> float:
    """Seconds of forward and backward on a batch, at so many operations a second."""
    width = int(config.hidden_size)
    weights = layers * (4 * width * width + 2 * width * int(config.intermediate_size))
    return FORWARD_AND_BACKWARD * weights * tokens * BATCH / (EFFICIENCY * speed)


def _operations_per_second() -> float:
    """How fast this machine multiplies matrices now."""
    import torch

    one, other = torch.randn(1024, 384), torch.randn(384, 1536)
    best = 0.0
    for _ in range(30):
        start = time.perf_counter()
        one @ other
        best = max(best, 2 * 1024 * 384 * 1536 / (time.perf_counter() - start))

    return best


def _memory(config: Any, tokens: int, layers: int) -> float:
    """GiB of a training: weights four times (gradient, two moments), activations of a batch, and torch itself."""
    width = int(config.hidden_size)
    vocabulary = int(getattr(config, "vocab_size", 0)) * width
    weights = vocabulary + 2 * layers * (4 * width * width + 2 * width * int(config.intermediate_size))
    activations = BATCH * tokens * layers * 20 * width
    return (4 * (4 * weights + activations)) / 2**30 + 0.6

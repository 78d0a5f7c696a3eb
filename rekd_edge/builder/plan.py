"""Settings that learn from the data at hand within a time, and what they will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rekd_edge.builder.facts import Facts
from rekd_edge.modeling.encoders.backbones import backbone_config
from rekd_edge.training.defaults import (
    BATCH,
    IMAGE_SIZE,
    MOST_EPOCHS,
    RATIO,
    Profile,
    learning_settings,
    tokens_of,
)

__all__ = ["Plan", "make_plan"]

QUICK_HOURS = 0.2
DEFAULT_HOURS = 2.0
LEAST_STEPS = 150
"""A student that takes fewer has seen nothing."""
EVAL_ROWS = 1000
"""Rows on which an epoch is judged, at most."""
STUDENT_LAYERS = {"text": 2, "image": 6}
TEACHER_LAYERS = {"text": 3, "image": 9}
GENERATOR_LAYERS = {"text": 1, "image": 2}
SHORTEST = 48
"""Texts are not cut below this many tokens to save time."""
EFFICIENCY = 0.38
"""Share of a matrix product's speed that training reaches, as measured (docs/build.md); controls, which see a tenth of
the input, are counted in."""
STEP_SECONDS = 0.02
"""Of a step besides its products, which is most of one of a tiny model."""
MORE_THREADS = 0.7
"""What each thread after the first adds: a cautious guess."""
FIXED_SECONDS = 90
"""Of starting the processes, exporting, measuring and writing the page."""
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
    budget = max(3600 * hours - FIXED_SECONDS, 30)
    tokens = _affordable(
        wanted, lambda tokens: LEAST_STEPS * _passes(teacher / student) * _step(config, tokens, student, speed), budget
    )
    a_step = _step(config, tokens, student, speed)

    rows = facts.rows["train"]
    steps, rows_used = _steps(rows, budget, a_step, teacher / student)
    words = None if facts.words is None else facts.words[1]
    profile = Profile(facts.task, rows_used, len(facts.labels), words, "random:" not in backbone)
    chosen = learning_settings(profile, steps)
    epochs = chosen.settings["epochs"]

    settings = {
        "data.spec": spec,
        **{f"data.{name}": value for name, value in (_size(facts, config, tokens) | data).items()},
        "backbone": backbone,
        **chosen.settings,
    }
    if rows_used < rows:
        settings["data.train_limit"] = rows_used
    if max(facts.rows.values()) > EVAL_ROWS and not {"eval_limit", "test_limit"} & data.keys():
        settings["data.eval_limit"] = EVAL_ROWS

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
    expected = (FIXED_SECONDS + _passes(teacher / student) * epochs * rows_used / BATCH * a_step) / 3600
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
    return min(tokens_of(facts.words[1]), longest)


def _affordable(tokens: int, seconds: Callable[[int], float], budget: float) -> int:
    """The longest texts, in steps of 16 tokens, of which the least number of steps fits into the time."""
    while tokens > SHORTEST and seconds(tokens) > budget:
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
    a_layer = 4 * width * width + 2 * width * int(config.intermediate_size)
    weights = layers * (a_layer + 2 * tokens * width)  # and attention
    return STEP_SECONDS + FORWARD_AND_BACKWARD * weights * tokens * BATCH / (EFFICIENCY * speed)


def _operations_per_second() -> float:
    """How fast this machine multiplies matrices when nothing else runs: by one thread's processor time."""
    import torch

    from rekd_edge.training.configuration import TrainingConfig
    from rekd_edge.training.trainer import uses_bf16

    precision = torch.bfloat16 if uses_bf16(TrainingConfig(method="cls")) else torch.float32
    one, other = torch.randn(1024, 384, dtype=precision), torch.randn(384, 1536, dtype=precision)
    best = 0.0
    for _ in range(30):
        start = time.process_time()
        one @ other
        best = max(best, 2 * 1024 * 384 * 1536 / max(time.process_time() - start, 1e-6))

    return best * (1 + MORE_THREADS * (torch.get_num_threads() - 1))


def _memory(config: Any, tokens: int, layers: int) -> float:
    """GiB of a training: weights four times (gradient, two moments), activations of a batch, and torch itself."""
    width = int(config.hidden_size)
    vocabulary = int(getattr(config, "vocab_size", 0)) * width
    weights = vocabulary + 2 * layers * (4 * width * width + 2 * width * int(config.intermediate_size))
    activations = BATCH * tokens * layers * 20 * width
    return (4 * (4 * weights + activations)) / 2**30 + 0.6

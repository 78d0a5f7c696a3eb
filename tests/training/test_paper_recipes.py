"""The recipes of the papers' tables hold the values that the papers and their authors' scripts state."""

from __future__ import annotations

from typing import Any

import pytest

from rekd_edge.training.configuration import TrainingConfig, load_config
from rekd_edge.training.objectives.plmr import Settings

# arXiv 2601.22531: sections 2 (equations 3, 8, 9, 10, 11) and 3.3, appendix C
REKD: dict[str, Any] = {
    "temperature_start": 5.0,
    "temperature_end": 0.1,
    "temperature_refresh": 100,
    "lambda_r": 0.5,
    "alpha": 0.3,
    "alpha_end": None,
    "kd_temperature": None,
    "distil": "both",
    "teacher_labels": "soft",
    "teacher_mask": "own",
    "teacher_margins": "raw",
    "gumbel_noise": "independent",
    "normalise_selection": False,
    "selection_loss": "per_sample",
    "mask_mode": "zero",
    "pooling": "first",
    "initial_ratio": None,
    "predictor_epochs": 0,
    "learning_rate": 1e-5,
    "head_learning_rate": 1e-5,
    "lr_scheduler": "constant",
    "warmup_ratio": 0.0,
    "batch_size": 32,
    "gradient_accumulation": 1,
    "adam_beta2": 0.999,
    "max_grad_norm": 0.0,
    "select_by": "loss",
    "early_stopping": None,
    "warm_start": False,
}
CIFAR: dict[str, Any] = {
    "target_ratio": 0.15,
    "lambda_select": 1e-2,
    "weight_decay": 1e-3,
    "head_dropout": 0.1,
    "data.image_size": 224,
    "data.augment": True,
}
STATED: dict[str, tuple[str, dict[str, Any]]] = {
    "imdb-paper": (
        "text",
        {
            "target_ratio": 0.10,
            "lambda_select": 1e-4,
            "weight_decay": 0.0,
            "head_dropout": 0.5,
            "count_all_positions": True,
            "spec": "imdb",
            "data.max_length": 256,
        },
    ),
    "cifar10-paper": ("image", {**CIFAR, "spec": "cifar10"}),
    "cifar100-paper": ("image", {**CIFAR, "spec": "cifar100"}),
}


def value_of(config: TrainingConfig, key: str) -> Any:
    section, _, name = key.rpartition(".")
    return getattr(config.data if section else config, name)


@pytest.mark.parametrize("method", ["cls", "re", "rekd"])
@pytest.mark.parametrize("recipe", STATED)
def test_rekd_recipes_state_the_papers_values(recipe: str, method: str) -> None:
    task, own = STATED[recipe]
    taught = {"teacher": "teacher"} if method == "rekd" else {}
    config = load_config(recipe, {"method": method, **taught}).resolved(task)
    expected = {**REKD, **own, "epochs": 20 if method == "cls" else 35}
    assert {key: value_of(config, key) for key in expected} == expected


def test_the_plmr_recipe_states_its_published_defaults() -> None:
    """`run_plmr.py` and the optimisers that it builds; layers are counted from 1 here, from 0 there."""
    config = load_config("plmr-paper", {"method": "plmr"}).resolved("text")
    expected = {
        "layers": 12,
        "generator_layers": 7 + 1,
        "target_ratio": 0.2,
        "epochs": 12,
        "batch_size": 64,
        "learning_rate": 5e-6,
        "head_learning_rate": 2e-5,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "head_dropout": 0.2,
        "mask_mode": "zero",
        "freeze_embeddings": "all",
        "data.max_length": 256,
    }
    assert {key: value_of(config, key) for key in expected} == expected
    assert config.options == Settings(
        full_layers=3 + 1,
        temperature=1.0,
        lambda_sparsity=5.0,
        lambda_continuity=10.0,
        full_text_weight=2.0,
        gap_weight=1.0,
        gap="signed",
        denominators="positions",
        zeroed="hidden_states",
        zero_class_token=True,
    )

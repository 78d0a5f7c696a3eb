"""Model cards of runs and bundles: Markdown from the templates beside this file, with the metadata of the Hub.

`huggingface_hub` fills a template in with Jinja. Only `train` and `export` write cards; a device does not import this.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from rekd_edge.data.sources import HUB_NAMES
from rekd_edge.methods import method_of
from rekd_edge.modeling import RationaleConfig

__all__ = ["bundle_card", "run_card"]

TEMPLATES = Path(__file__).parent
MAX_LABELS = 20
"""How many labels a card names."""


def bundle_card(manifest: dict[str, Any], record: dict[str, Any]) -> ModelCard:
    """The card of a bundle: what it decides from, how to run it, and what was measured and checked.

    Args:
        manifest: the manifest's fields.
        record: the run's `training.json`.
    """
    task = manifest["task"].partition("-")[0]
    metadata = _metadata(task, manifest["method"], manifest["metrics"], record, ["onnx"])
    return _filled(
        "bundle.md.jinja",
        metadata,
        manifest,
        task=task,
        source=_source(record),
        inputs=[io["name"] for io in manifest["graph"]["inputs"]],
    )


def run_card(config: RationaleConfig, record: dict[str, Any], metrics: dict[str, Any]) -> ModelCard:
    """The card of a run: how it was trained, what was measured on dev data, and how to go on with it.

    Args:
        config: the trained model's configuration.
        record: the run's `training.json`.
        metrics: the run's `metrics.json`.
    """
    fields = {name: getattr(config, name) for name in ("task", "method", "labels", "mask_mode", "target_ratio")}
    recipe = record["recipe"]
    return _filled(
        "run.md.jinja",
        _metadata(config.task, config.method, metrics, record, []),
        {**fields, "metrics": metrics, "record": record},
        source=_source(record),
        backbone=Path(recipe["backbone"]).name,
        layers=config.predictor["num_hidden_layers"],
        teachers=[Path(folder.strip()).name for folder in (recipe.get("teacher") or "").split(",") if folder.strip()],
    )


def _filled(template: str, metadata: ModelCardData, fields: dict[str, Any], **more: Any) -> ModelCard:
    labels = fields["labels"]
    named = ", ".join(labels[:MAX_LABELS]) + (f" and {len(labels) - MAX_LABELS} more" if labels[MAX_LABELS:] else "")
    values = {**fields, **more, "labels": named, "kind": method_of(fields["method"])}
    return ModelCard.from_template(metadata, template_path=str(TEMPLATES / template), **values)


def _metadata(
    task: str, method: str, metrics: dict[str, Any], record: dict[str, Any], tags: list[str]
) -> ModelCardData:
    source = _source(record)
    measured = EvalResult(
        task_type=f"{task}-classification",
        dataset_type=source,
        dataset_name=source,
        dataset_split="validation",
        metric_type="accuracy",
        metric_value=metrics.get("accuracy"),
    )
    return ModelCardData(
        library_name="rekd-edge",
        pipeline_tag=f"{task}-classification",
        tags=["rationale-extraction", "explainability", method, *tags],
        base_model=_hub_backbone(record),
        datasets=_hub_data(record),
        metrics=["accuracy"] if measured.metric_value is not None else None,
        model_name=f"{method} on {source}",
        eval_results=[measured] if measured.metric_value is not None else None,
    )


def _source(record: dict[str, Any]) -> str:
    """The last part of the data's SPEC, which names no folder of the machine that it was trained on."""
    return Path(record.get("recipe", {}).get("data", {}).get("spec") or "unknown data").name


def _hub_data(record: dict[str, Any]) -> list[str] | None:
    """The data's name on the Hub, in a list; None for a local file or folder and for built-in data."""
    spec = record.get("recipe", {}).get("data", {}).get("spec") or ""
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", spec) or Path(spec).exists() or Path(spec).suffix:
        return None

    return [spec] if spec in HUB_NAMES or "/" in spec else None


def _hub_backbone(record: dict[str, Any]) -> str | None:
    """The backbone's name on the Hub; None for a local folder and for random weights."""
    backbone = record.get("recipe", {}).get("backbone") or ""
    name = backbone.rpartition(":")[2]  # of FAMILY:BACKBONE
    if "random:" in backbone or not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) or Path(name).exists():
        return None

    return name

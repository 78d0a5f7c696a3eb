"""The model card that goes with every bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rekd_edge.methods import method_of

__all__ = ["model_card"]


def model_card(manifest: dict[str, Any], training: dict[str, Any]) -> str:
    """Markdown: what the model is, how to run it, what was measured and checked.

    Args:
        manifest: the manifest's fields.
        training: the run's `training.json`.
    """
    is_text = "text" in manifest
    metrics, parity = manifest["metrics"], manifest["parity"]
    source = Path(training.get("recipe", {}).get("data", {}).get("spec", "unknown data")).name
    inputs = ", ".join(f"`{io['name']}`" for io in manifest["graph"]["inputs"])
    described = "`tokenizer.json`" if is_text else "`image` in `manifest.json`"
    given = '"An absolute delight."' if is_text else "photo.png"
    rows = [
        ("Accuracy on dev data", _share(metrics.get("accuracy"))),
        ("Accuracy on dev data from the rationale alone", _share(metrics.get("rationale_accuracy"))),
        ("Rationale ratio on dev data", _share(metrics.get("rationale_ratio"))),
        ("Accuracy on random masks of that ratio", _share(metrics.get("random_mask_accuracy"))),
        ("Mask positions that differ from the trained model", f"{parity['mask_differences']} of {parity['positions']}"),
        ("Largest difference of logits", f"{parity['largest_logit_difference']:.1e}"),
    ]
    band = manifest["near_ties"]
    rows.append(
        (
            f"Features within {band['width']:.1e} of a tie, which another runtime may select otherwise",
            f"{band['within']} of {band['features']}",
        )
    )
    if manifest["quantization"]:
        rows.append(("Features on which int8 and fp32 masks agree", _share(manifest["quantization"]["mask_agreement"])))
        rows.append(("Labels on which int8 and fp32 agree", _share(manifest["quantization"]["label_agreement"])))
    if found := manifest["vocabulary"]:
        rows.append(
            (
                "Word pieces kept, and accuracy with them",
                f"{found['pieces']} of {found['of']}, {_share(found['accuracy_trimmed'])} "
                f"(with all: {_share(found['accuracy_full'])})",
            )
        )
    features = "words" if is_text else "patches"
    decides = f"Selects a few {features} (about {manifest['target_ratio']:.0%}), then decides from those alone."
    shown = "The rationale is what the predictor saw; it is not a statement that a person would give the same reasons."
    gives = "`logits`,\n`rationale_mask` and `selection_margin`"
    method = method_of(manifest["method"])
    if not method.selects:
        decides = f"Decides from all {features}."
    elif method.whole_input:
        decides = (
            "Decides from the whole text, and scores its words for every label in the same pass. About "
            f"{manifest['target_ratio']:.0%} of the words are shown as the rationale of the label."
        )
        shown = (
            "The rationale is a score of the pass that decided, not the only thing that the decision could read; the\n"
            "accuracy from the rationale alone says how much of the decision it carries. It is not a statement that a\n"
            "person would give the same reasons."
        )
        gives = (
            "`logits`,\n`rationale_mask` and `selection_margin` of the label, and `rationale_scores` of every label, "
            "to be cut at\n`class_thresholds` in `manifest.json`"
        )
    if not manifest["verified"]:
        decides = f"**This bundle failed its check: {'; '.join(manifest['failures'])}.**\n\n{decides}"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows if value)
    return f"""# {"Text" if is_text else "Image"} classifier that shows its rationale

{decides}
Labels: {", ".join(manifest["labels"])}.
Trained by `{manifest["method"]}` on `{source}`, precision {manifest["precision"]}.

## Run it

    pip install "rekd-edge{"" if is_text else "[image]"}"
    rekd-edge predict . {given}

or with any ONNX Runtime: `model.onnx` takes {inputs} and gives {gives}; preprocessing is described by {described}.

## Measured

| what | value |
|---|---|
{table}

{shown}
"""


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"

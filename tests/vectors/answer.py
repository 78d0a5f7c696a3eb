"""What Python's runtime answers to the vectors, as one JSON document: {bundle: [answers]}.

Needs what a device needs: rekd_edge.runtime, numpy, onnxruntime, tokenizers, Pillow. `benchmarks/runtimes.py` runs it
on this machine, and on an emulated one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def answers(bundle: Path) -> list[dict[str, Any]]:
    """Mask, margins, label, ids and offsets of every input of a bundle's task."""
    from rekd_edge.runtime import Rationalizer

    task = bundle.name.split("-")[0]
    inputs = json.loads((HERE / f"{task}.json").read_text(encoding="utf-8"))
    values = [row["text"] if task == "text" else HERE / "images" / f"{row['name']}.png" for row in inputs]

    rationalizer = Rationalizer.load(bundle, threads=1)
    found = rationalizer.predict_rows(values, batch_size=1)
    rows = [
        {"mask": mask.astype(int).tolist(), "margins": margin.tolist(), "label": rationalizer.manifest.labels[best]}
        for mask, margin, best in zip(found.masks, found.margins, found.logits.argmax(axis=1).tolist(), strict=True)
    ]
    if task == "text":
        for row, encoded in zip(rows, rationalizer.encode(values), strict=True):
            row |= {"ids": encoded.ids, "offsets": encoded.offsets}

    return rows


if __name__ == "__main__":
    bundles = sorted(path for path in (HERE / "bundles").iterdir() if path.is_dir())
    json.dump({bundle.name: answers(bundle) for bundle in bundles}, sys.stdout)

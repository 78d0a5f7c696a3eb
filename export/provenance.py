"""What a bundle was made from: recorded at export, shown by `inspect`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from rekd_edge.files import sha256_of
from rekd_edge.versions import source_commit

__all__ = ["provenance"]

RUN_FILES = ("config.json", "model.safetensors")


def provenance(run: Path, training: dict[str, Any]) -> dict[str, Any]:
    """The run, its data, its teachers, its recipe, and the code.

    Args:
        run: a finished run.
        training: its `training.json`; what a run of an earlier version did not record is null or empty.

    Returns:
        `commit` of this package, where it is known; `data` (the SPEC's last part, and the fingerprint of its splits);
        `recipe_sha256` of the whole recipe; `teacher_sha256`, config and weights of each teacher; `run_sha256` by file;
        `trained_with`, the versions that trained it. `versions` of the manifest are those that exported it.
    """
    recipe, data = training.get("recipe"), training.get("data", {})
    spec = data.get("spec") or (recipe or {}).get("data", {}).get("spec")
    return {
        "commit": source_commit(),
        "data": {"spec": None if spec is None else Path(spec).name, "fingerprint": data.get("fingerprint")},
        "recipe_sha256": None if recipe is None else _sha256_of_json(recipe),
        "teacher_sha256": training.get("teacher_sha256", []),
        "run_sha256": {name: sha256_of(run / name) for name in RUN_FILES},
        "trained_with": training.get("versions"),
    }


def _sha256_of_json(document: Any) -> str:
    """Of its canonical form: sorted names, no spaces."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()

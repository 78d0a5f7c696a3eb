"""Put a bundle into the box, with a card that says what it is worth on the test split:

    python -m rekd_edge.models.add BUNDLE sentiment --run RUN --data imdb --licence mit --dataset stanfordnlp/imdb

The bundle's own files stay as they are but for the card; the manifest is written and sealed anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rekd_edge import models
from rekd_edge.data import DataSettings
from rekd_edge.errors import InputError, RekdEdgeError
from rekd_edge.evaluate import evaluate
from rekd_edge.evaluation.intervals import wilson_interval
from rekd_edge.files import staged_folder
from rekd_edge.hub.card import restate
from rekd_edge.runs import RunFolder
from rekd_edge.runtime.bundle import Manifest
from rekd_edge.runtime.rationalizer import Rationalizer
from rekd_edge.training.control import counting_control

__all__ = ["add_model"]

LARGEST = 15_000_000
"""Bytes of a model in the box: everybody who installs the package downloads it."""


def add_model(
    bundle: Path,
    name: str,
    *,
    run: Path,
    data: str,
    licence: str,
    datasets: Sequence[str] = (),
    base_model: str | None = None,
    settings: DataSettings | None = None,
) -> Path:
    """Measure a bundle and the control of its run on the test split, and put it into the box with what was found.

    Args:
        bundle: a text bundle that `rekd-edge export` wrote.
        name: what it is called in the box; lower-case letters.
        run: the run that it was exported from, whose control it is compared with.
        data: the data SPEC.
        licence: of the model, as the Hub names it.
        datasets: what it was trained on, by their names on the Hub.
        base_model: its backbone, by its name on the Hub.
        settings: of the data.

    Returns:
        Its folder.

    Raises:
        InputError: it is too large, damaged or signed, the name is taken, or the run has no control.
    """
    if not (name.isascii() and name.islower() and name.isalpha()):
        raise InputError(f"{name!r} is no name for a model in the box; take lower-case letters.")

    manifest = Manifest.load(bundle)
    size = sum(record["size"] for record in manifest.fields["files"].values())
    if size > LARGEST:
        raise InputError(
            f"{bundle} has {size:,} bytes, and a model in the box at most {LARGEST:,}; trim its vocabulary."
        )

    control = counting_control(RunFolder(run))
    if control is None:
        raise InputError(f"{run} was compared with no control; train it with one.")

    found = evaluate(bundle, data, settings)
    random = evaluate(control.path, data, settings)["accuracy"]
    source = ", ".join(datasets) or Path(data).name
    metadata: dict[str, Any] = {
        "license": licence,
        "datasets": list(datasets),
        "metrics": ["accuracy"],
        "base_model": base_model,
        "eval_results": _results(manifest.task, source, found),
        "model_name": name,
    }

    with staged_folder(models.BOX / name) as folder:
        stated = {key: value for key, value in metadata.items() if value}
        restate(bundle, folder, stated, _section(found, random, source, licence))
        Rationalizer.load(folder, threads=1).check_longest()

    return models.BOX / name


def _results(task: str, source: str, found: dict[str, Any]) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=task,
            dataset_type=source,
            dataset_name=source,
            dataset_split="test",
            metric_type="accuracy",
            metric_value=found["accuracy"],
        )
    ]


def _section(found: dict[str, Any], control: float, source: str, licence: str) -> str:
    """What the card says of the test split; accuracy with a Wilson interval."""
    interval = wilson_interval(round(found["accuracy"] * found["n"]), found["n"])
    return f"""## On the test split

| | |
|:--|--:|
| Rows of `{source}` | {found["n"]:,} |
| Accuracy | {found["accuracy"]:.4f} (95 % interval {interval.low:.4f} to {interval.high:.4f}) |
| Macro F1 | {found["macro_f1"]:.4f} |
| Rationale ratio | {found["rationale_ratio"]:.4f} |
| Accuracy of the same predictor on random masks of that ratio (control) | {control:.4f} |

Licence: {licence}. `rekd-edge evaluate` gives these figures again from the same rows.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line above."""
    parser = argparse.ArgumentParser(prog="python -m rekd_edge.models.add", description="Put a bundle into the box.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("name")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--licence", required=True)
    parser.add_argument("--dataset", action="append", default=[])
    parser.add_argument("--base-model")
    parser.add_argument("--test-limit", type=int)
    given = parser.parse_args(arguments)

    try:
        folder = add_model(
            given.bundle,
            given.name,
            run=given.run,
            data=given.data,
            licence=given.licence,
            datasets=given.dataset,
            base_model=given.base_model,
            settings=DataSettings(test_limit=given.test_limit),
        )
    except RekdEdgeError as error:
        print(error, file=sys.stderr)
        return error.exit_status

    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

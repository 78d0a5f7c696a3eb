"""Does a bundle that answers a million times give the same answers at the end, from the same memory?

    python benchmarks/soak.py [BUNDLE] --predictions 1000000

Asks a text bundle (a tiny int8 one by default, trained here on generated reviews) the same reviews again and again, one
by one and in lists of up to 64 in batches of up to 64, in random order. Every label and every mask is compared with
those of the first pass, which asked each review alone. Resident memory, threads and open files are read after each
tenth of the predictions, in a process that has imported nothing of training. Writes `results/soak.json`; status 1 if an
answer differs, if one label is all that was seen, or if memory grows by over 5 % after the first tenth, by when every
shape has been seen.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _results import write_results

from rekd_edge import Rationalizer
from rekd_edge.progress import say
from rekd_edge.runtime.memory import peak_memory

SEED = 2026
TEXTS = 1000
LONGEST_LIST = 64
ALONE = 0.3  # of the predictions
READINGS = 10
ALLOWED_GROWTH = 0.05
SETTINGS = {"method": "re", "layers": "1", "data.max_length": "64"}


def main() -> None:
    """Ask, compare and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, help="a text bundle")
    parser.add_argument("--predictions", type=int, default=1_000_000)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        training = multiprocessing.get_context("spawn").Process(target=prepare, args=(Path(folder), arguments.bundle))
        training.start()
        training.join()
        if training.exitcode != 0:
            sys.exit(1)
        texts = json.loads((Path(folder) / "reviews.json").read_text())
        rationalizer = Rationalizer.load(arguments.bundle or Path(folder) / "bundle", threads=1)
        row = soak(rationalizer, texts, arguments.predictions)

    write_results("soak", [row])
    grown = row["readings"][-1]["resident_bytes"] / row["readings"][0]["resident_bytes"] - 1
    differ = row["label_differences"] or row["mask_differences"] or row["labels_seen"] == 1
    sys.exit(bool(differ or grown > ALLOWED_GROWTH))


def soak(rationalizer: Rationalizer, texts: list[str], predictions: int) -> dict[str, Any]:
    """Ask for so many predictions, and what came of it."""
    chance = random.Random(SEED)
    first = [answer(rationalizer(text)) for text in texts]
    done = alone = labels = masks = 0
    readings: list[dict[str, int]] = []
    began = time.monotonic()

    while done < predictions:
        asked = [chance.randrange(len(texts)) for _ in range(chance.randint(1, LONGEST_LIST))]
        if chance.random() < ALONE:
            answers = [answer(rationalizer(texts[index])) for index in asked]
            alone += len(asked)
        else:
            given = rationalizer([texts[index] for index in asked], batch_size=chance.randint(1, LONGEST_LIST))
            answers = [answer(prediction) for prediction in given]

        done += len(asked)
        labels += sum(now[0] != first[index][0] for now, index in zip(answers, asked, strict=True))
        masks += sum(now[1] != first[index][1] for now, index in zip(answers, asked, strict=True))

        if done >= (len(readings) + 1) * predictions / READINGS:
            readings.append({"predictions": done, **resources()})
            say(f"{done} predictions, {readings[-1]['resident_bytes'] / 1e6:.1f} MB, {labels} labels differ")

    return {
        "predictions": done,
        "one_by_one": alone,
        "texts": len(texts),
        "labels_seen": len({label for label, _ in first}),
        "label_differences": labels,
        "mask_differences": masks,
        "seconds": round(time.monotonic() - began),
        "peak_memory_bytes": peak_memory(),
        "mean_rationale_ratio": round(sum(sum(mask) / max(len(mask), 1) for _, mask in first) / len(first), 4),
        "readings": readings,
    }


def answer(prediction: Any) -> tuple[str, tuple[int, ...]]:
    """The label and the mask."""
    return prediction.label, tuple(prediction.mask)


def resources() -> dict[str, int]:
    """What this process holds now, from Linux."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "resident_bytes": int(status["VmRSS"].split()[0]) * 1024,
        "threads": int(status["Threads"]),
        "open_files": len(list(Path("/proc/self/fd").iterdir())),
    }


def prepare(folder: Path, bundle: Path | None) -> None:
    """Generated reviews, cut to lengths from one word to all, so that many shapes occur; and a bundle if none is given.

    The bundle is a one-layer generator and predictor, trained for seconds and exported as int8.
    """
    from rekd_edge.data import DataSettings, load_data
    from rekd_edge.export import export_bundle
    from rekd_edge.training.configuration import load_config
    from rekd_edge.training.run import train

    texts = load_data("builtin:planted", DataSettings(train_limit=TEXTS, eval_limit=64)).split("train").inputs
    chance = random.Random(SEED)
    cut = [" ".join(words[: chance.randint(1, len(words))]) for words in (str(text).split() for text in texts)]
    (folder / "reviews.json").write_text(json.dumps(cut))

    if bundle is None:
        train(load_config("planted", SETTINGS), folder / "run")
        export_bundle(folder / "run", folder / "bundle", precision="int8")


if __name__ == "__main__":
    main()

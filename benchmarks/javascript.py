"""What does an explained prediction cost in Node and in the browser, beside Python and a black box in transformers.js?

    python benchmarks/javascript.py --bundle transformer=FOLDER local=FOLDER --black-box FOLDER --imdb SPEC --tokens 128

The bundles are those that `benchmarks/latency.py` builds (BERT-mini, random weights, 10 %), the black box the folder
that Optimum writes of the same geometry's int8 classifier. Every row is the time from a review's text to the answer,
with tokenisation, on one thread: reviews cut to the length, batch 1, each runtime in a process of its own, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from _results import percentiles, write_results

from rekd_edge.data import DataSettings, load_data
from rekd_edge.progress import say
from rekd_edge.runtime import Rationalizer
from rekd_edge.runtime.text import encode_texts, load_tokenizer

SCRIPT = Path(__file__).parent.parent / "js" / "scripts" / "latency.js"
REVIEWS = 20
REPEATS = 5
SEED = 2026


def main() -> None:
    """Write one row a system and runtime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", nargs="+", required=True, metavar="GENERATOR=FOLDER")
    parser.add_argument("--black-box", type=Path, metavar="FOLDER")
    parser.add_argument("--imdb", default="imdb", metavar="SPEC", help="reviews to measure on")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()

    bundles = dict(given.split("=", 1) for given in arguments.bundle)
    texts = reviews(arguments.imdb, Path(next(iter(bundles.values()))), arguments.tokens)
    systems: list[tuple[dict[str, Any], Any]] = []
    for generator, folder in bundles.items():
        facts = {"system": "rekd-edge", "geometry": "bert-mini", "generator": generator, "precision": "int8"}
        facts["rationale_ratio"] = ratio(folder, texts)
        systems.append(({**facts, "runtime": "python"}, lambda folder=folder: in_python(folder, texts)))
        for runtime in ("node", "chromium"):
            command = ["node", str(SCRIPT), runtime, folder]
            systems.append(({**facts, "runtime": runtime}, lambda command=command: in_javascript(command, texts)))
    for runtime in ("node", "chromium") if arguments.black_box else ():
        facts = {"system": "transformers.js-classifier", "geometry": "bert-mini", "precision": "int8"}
        command = ["node", str(SCRIPT), runtime, str(arguments.black_box), "--transformers"]
        systems.append(({**facts, "runtime": runtime}, lambda command=command: in_javascript(command, texts)))

    times: list[list[float]] = [[] for _ in systems]
    for turn in range(arguments.turns):
        for i, (facts, measure) in enumerate(systems):
            say(f"turn {turn + 1}: {facts['system']} {facts.get('generator', '')} in {facts['runtime']}")
            times[i] += measure()

    common = {"tokens": arguments.tokens, "batch_size": 1, "threads": 1, "reviews": len(texts)}
    rows = [{**facts, **common, **percentiles(found)} for (facts, _), found in zip(systems, times, strict=True)]
    write_results("javascript", rows, load_average=[round(load, 1) for load in os.getloadavg()])
    for row in rows:
        say(f"{row['system']} {row.get('generator', '')} in {row['runtime']}: {row['p50_ms']:.1f} ms")


def reviews(spec: str, bundle: Path, tokens: int) -> list[str]:
    """Reviews that are cut to so many tokens, special tokens included."""
    inputs = load_data(spec, DataSettings()).split("test").inputs
    tokenizer = load_tokenizer(bundle / "tokenizer.json", tokens)
    found = []
    for i in np.random.default_rng(SEED).permutation(len(inputs)).tolist():
        (encoded,) = encode_texts(tokenizer, [str(inputs[i])])
        if encoded.truncated:
            found.append(str(inputs[i])[: max(end for _, end in encoded.offsets)])
        if len(found) == REVIEWS:
            return found

    raise SystemExit(f"{spec} has too few reviews of {tokens} tokens.")


def ratio(bundle: str, texts: list[str]) -> float:
    """The mean rationale ratio of a bundle on the texts."""
    predictions = Rationalizer.load(bundle, threads=1)(texts)
    return round(float(np.mean([prediction.rationale_ratio for prediction in predictions])), 4)


def in_python(bundle: str, texts: list[str]) -> list[float]:
    """Seconds of every prediction, the first round apart."""
    rationalizer = Rationalizer.load(bundle, threads=1)
    times = []
    for turn in range(REPEATS + 1):
        for text in texts:
            started = time.perf_counter()
            rationalizer(text)
            if turn:
                times.append(time.perf_counter() - started)

    return times


def in_javascript(command: list[str], texts: list[str]) -> list[float]:
    """The same of js/scripts/latency.js."""
    found = subprocess.run(command, input=json.dumps(texts), stdout=subprocess.PIPE, text=True, check=True).stdout
    return [milliseconds / 1000 for milliseconds in json.loads(found)]


if __name__ == "__main__":
    main()

"""What does a device have to hold? Bytes on disk, peak memory, and the time from a cold start to the first prediction.

    python benchmarks/footprint.py --imdb FOLDER --cifar10 FOLDER --tokenizer FOLDER

Each start is a fresh process on one thread that predicts one text of 256 tokens, or one image file, the way each
package's own documentation shows; systems take turns. `rekd-edge-trimmed` was exported with `--trim-vocabulary` for the
training texts of the data, `rekd-edge-4-bit` from a run whose embeddings were rounded to 4 bits.
`onnxruntime-classifier` is Optimum's graph with the least that it needs: the difference that is left where no framework
is imported. A process reports its own peak resident memory
(VmHWM), so that nothing of this one counts. Seconds run from starting Python until the answer is known.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _bundles import GENERATORS, GEOMETRIES, LOCAL, Material, Recipe, selected
from _peers import BlackBox
from _results import write_results

from rekd_edge.progress import say
from rekd_edge.runtime.bundle import LAYOUT
from rekd_edge.runtime.session import open_session

REPORT = """
print("answered", flush=True)
from rekd_edge.runtime.memory import peak_memory
print(peak_memory())
"""
OURS = """
import sys
from rekd_edge import Rationalizer
Rationalizer.load(sys.argv[1], threads=1)(sys.argv[2])
"""
OPTIMUM = """
import sys
from onnxruntime import SessionOptions
from optimum.onnxruntime import {model}
from transformers import {processor}, pipeline
options = SessionOptions()
options.intra_op_num_threads = 1
model = {model}.from_pretrained(sys.argv[1], session_options=options)
pipeline("{task}", model=model, {argument}={processor}.from_pretrained(sys.argv[1]))(sys.argv[2])
"""
TRANSFORMERS = """
import sys
from transformers import pipeline
pipeline("{task}", model=sys.argv[1])(sys.argv[2])
"""
PLAIN = {
    "text": """
import sys
from pathlib import Path
import numpy
from onnxruntime import InferenceSession, SessionOptions
from tokenizers import Tokenizer
options = SessionOptions()
options.intra_op_num_threads = 1
session = InferenceSession(next(Path(sys.argv[1]).glob("*.onnx")), options)
ids = numpy.array([Tokenizer.from_file(sys.argv[1] + "/tokenizer.json").encode(sys.argv[2]).ids])
given = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}
session.run(None, {value.name: given[value.name] for value in session.get_inputs()})
""",
    "image": """
import sys
from pathlib import Path
import numpy
from onnxruntime import InferenceSession, SessionOptions
from PIL import Image
options = SessionOptions()
options.intra_op_num_threads = 1
session = InferenceSession(next(Path(sys.argv[1]).glob("*.onnx")), options)
pixels = numpy.asarray(Image.open(sys.argv[2]).convert("RGB").resize((224, 224)), numpy.float32)
session.run(None, {"pixel_values": (pixels / 127.5 - 1).transpose(2, 0, 1)[None]})
""",
}
NAMES = {
    "text": {
        "task": "text-classification",
        "model": "ORTModelForSequenceClassification",
        "processor": "AutoTokenizer",
        "argument": "tokenizer",
    },
    "image": {
        "task": "image-classification",
        "model": "ORTModelForImageClassification",
        "processor": "AutoImageProcessor",
        "argument": "image_processor",
    },
}
TOKENS = {"text": 256, "image": 196}
WEIGHTS = (".onnx", ".safetensors")
BARS = {"cold_start_s": 0.3, "peak_memory_mb": 90}
"""Of our BERT-mini bundle with a local generator, at most."""


def main() -> None:
    """Write one row a system and geometry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", nargs="+", choices=GEOMETRIES, default=["bert-mini", "vit-tiny"])
    parser.add_argument("--generator", nargs="+", choices=GENERATORS, default=list(GENERATORS))
    parser.add_argument("--starts", type=int, default=5)
    Material.add_arguments(parser)
    arguments = parser.parse_args()
    material = Material(arguments)
    rows = [
        row
        for geometry in arguments.geometry
        for row in measured(geometry, arguments.generator, arguments.starts, material)
    ]
    write_results("footprint", rows, summary=summary(rows))


def measured(geometry: str, generators: list[str], starts: int, material: Material) -> list[dict[str, Any]]:
    """The rows of one geometry."""
    task = GEOMETRIES[geometry].task
    names, tokens = NAMES[task], TOKENS[task]
    black_box = BlackBox(geometry, material)
    ours = {("rekd-edge", generator): Recipe.of(geometry, [tokens], generator) for generator in generators}
    if task == "text" and LOCAL in generators:
        ours["rekd-edge-4-bit", LOCAL] = Recipe.of(geometry, [tokens], LOCAL, embedding_bits=4)

    bundles = {which: recipe.bundle(material, "int8") for which, recipe in ours.items()}
    if task == "text":
        trimmed = {generator: ours["rekd-edge", generator] for generator in generators}
        bundles |= {("rekd-edge-trimmed", g): r.bundle(material, "int8", trim=True) for g, r in trimmed.items()}

    systems = [
        *((name, generator, "int8", OURS, bundle) for (name, generator), bundle in bundles.items()),
        ("optimum-classifier", None, "int8", OPTIMUM.format(**names), black_box.optimum("int8")),
        ("onnxruntime-classifier", None, "int8", PLAIN[task], black_box.optimum("int8")),
        ("transformers-classifier", None, "fp32", TRANSFORMERS.format(**names), black_box.torch()),
    ]
    sessions = [open_session(bundles[which] / LAYOUT.graph, 1) for which in ours]
    first = selected(sessions, material.feeds(task, tokens), GEOMETRIES[geometry].ratio, 1)[0]
    example = material.inputs(task, tokens)[first]

    if task == "image":
        file = material.work / "example.png"
        example.save(file)
        example = str(file)

    started: list[list[tuple[float, int]]] = [[] for _ in systems]
    for turn in range(starts + 1):
        for (*_, program, folder), found in zip(systems, started, strict=True):
            found.append(cold_start(program, folder, example))
            if turn == 0:
                found.clear()  # the disk's cache was cold

    rows = []
    for (name, generator, precision, _, folder), found in zip(systems, started, strict=True):
        files = [file for file in folder.rglob("*") if file.is_file()]
        row = {
            "system": name,
            "geometry": geometry,
            "precision": precision,
            "generator": generator,
            "tokens": tokens,
            "threads": 1,
            "starts": starts,
            "model_bytes": sum(file.stat().st_size for file in files if file.suffix in WEIGHTS),
            "folder_bytes": sum(file.stat().st_size for file in files),
            "peak_memory_mb": round(statistics.median(peak for _, peak in found) / 1e6, 1),
            "cold_start_s": round(statistics.median(seconds for seconds, _ in found), 3),
        }
        say(
            f"{geometry} {name} {generator}: {row['model_bytes'] / 1e6:.1f} MB model, "
            f"{row['folder_bytes'] / 1e6:.1f} MB in all, {row['peak_memory_mb']:.0f} MB peak, "
            f"{row['cold_start_s']:.2f} s"
        )
        rows.append(row)

    return rows


def cold_start(program: str, folder: Path, example: str) -> tuple[float, int]:
    """Seconds to the first answer, and peak memory in bytes, of one fresh process."""
    command = [sys.executable, "-c", program + REPORT, str(folder), example]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        answered = child.stdout.readline()
        seconds = time.perf_counter() - start
        peak = child.stdout.readline()
        _, errors = child.communicate()

    if child.returncode or answered.strip() != "answered":
        raise SystemExit(f"{folder} could not be run:\n{errors}")

    return seconds, int(peak)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours over Optimum's classifier, and the bars that are set for BERT-mini."""
    optimum = {row["geometry"]: row for row in rows if row["system"] == "optimum-classifier"}
    found = []

    for row in rows:
        if not row["system"].startswith("rekd-edge"):
            continue

        over = {
            f"{name}_over_optimum": round(row[name] / optimum[row["geometry"]][name], 3)
            for name in ("model_bytes", "peak_memory_mb", "cold_start_s")
        }
        bars = BARS if (row["geometry"], row["generator"]) == ("bert-mini", LOCAL) else {}
        passed = {"passed": all(row[name] <= bar for name, bar in bars.items())} if bars else {}
        which = {name: row[name] for name in ("system", "geometry", "generator")}
        found.append({**which, **over, "bars": bars, **passed})

    return found


if __name__ == "__main__":
    main()

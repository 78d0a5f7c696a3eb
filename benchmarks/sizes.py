"""How large is `model.onnx`, both towers, beside Optimum's int8 classifier, which is one?

    python benchmarks/sizes.py --imdb FOLDER --tokenizer FOLDER

A local generator with word embeddings in 8 and in 4 bits, as `round_embeddings` of a run decides. Bytes depend on the
geometry and the bits alone, so the bundles are calibrated on short texts. Writes `results/sizes.json`.
"""

from __future__ import annotations

import argparse

from _bundles import GEOMETRIES, LOCAL, Material, Recipe
from _peers import BlackBox
from _results import write_results

from rekd_edge.progress import say
from rekd_edge.runtime.bundle import LAYOUT

BAR, AIM = 0.75, 0.6
"""Of Optimum's file, at most, with embeddings in 4 bits."""
BITS = (8, 4)
TOKENS = 32


def main() -> None:
    """Write one row a file."""
    texts = [name for name, geometry in GEOMETRIES.items() if geometry.task == "text"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", nargs="+", choices=texts, default=["bert-mini"])
    Material.add_arguments(parser)
    arguments = parser.parse_args()
    material = Material(arguments)
    rows = []

    for geometry in arguments.geometry:
        optimum = BlackBox(geometry, material).optimum_graph("int8").stat().st_size
        rows.append({"system": "optimum-classifier", "geometry": geometry, "model_bytes": optimum})

        for bits in BITS:
            bundle = Recipe.of(geometry, [TOKENS], LOCAL, embedding_bits=bits).bundle(material, "int8")
            size = (bundle / LAYOUT.graph).stat().st_size
            row = {"system": "rekd-edge", "geometry": geometry, "embedding_bits": bits, "model_bytes": size}
            row["over_optimum_int8"] = round(size / optimum, 4)
            rows.append({**row, "bar": BAR, "aim": AIM, "passed": size <= BAR * optimum} if bits == 4 else row)
            say(f"{geometry}, {bits} bits: {size / 1e6:.2f} MB, {size / optimum:.3f} of Optimum")

    write_results("sizes", rows)


if __name__ == "__main__":
    main()

"""Does a text always get the same answer, whatever its batch? An int8 bundle over a million real tokens.

    python benchmarks/invariance.py [BUNDLE]... --imdb FOLDER --tokenizer FOLDER

Test reviews of at most 256 tokens are predicted three times: alone on one thread, in shuffled batches on two threads,
and alone but padded to 256. Without a BUNDLE, a BERT-mini with random weights is built. Writes
`results/invariance.json`; exits with status 1 if any mask or label differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _bundles import SEED, Feed, Material, Recipe
from _results import write_results

from rekd_edge.export.parity import invariance
from rekd_edge.progress import say
from rekd_edge.runtime.bundle import LAYOUT, Manifest
from rekd_edge.runtime.text import encode_texts, load_tokenizer

LENGTH = 256


def main() -> None:
    """Check every bundle: one row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE", help="int8 text bundles")
    parser.add_argument("--features", type=int, default=1_000_000, help="tokens to check, without special tokens")
    Material.add_arguments(parser)
    arguments = parser.parse_args()
    material = Material(arguments)
    bundles = arguments.bundles or [Recipe.of("bert-mini", [LENGTH]).bundle(material, "int8")]
    rows = [checked(bundle, material, arguments.features) for bundle in bundles]
    write_results("invariance", rows)
    sys.exit(any(row["mask_differences"] or row["label_differences"] for row in rows))


def checked(bundle: Path, material: Material, features: int) -> dict[str, Any]:
    """Count the differences over this many tokens of the test reviews."""
    manifest = Manifest.load(bundle)
    feeds = reviews(bundle, manifest, material, features)
    assert manifest.text is not None
    found = invariance(bundle / LAYOUT.graph, feeds, manifest.text.pad_token_id)
    specials = sum(int(np.isin(feed["input_ids"], manifest.text.special_token_ids).sum()) for feed in feeds)
    row = {
        "bundle": bundle.name if bundle.name != "int8" else bundle.parent.name,
        "precision": manifest.fields["precision"],
        "features": found["positions"] - specials,
        **found,
    }
    say(
        f"{row['bundle']}: {row['mask_differences']} masks of {row['features']} tokens and {row['label_differences']} "
        f"labels of {row['rows']} texts differ, {row['near_ties']} near-ties apart"
    )

    return row


def reviews(bundle: Path, manifest: Manifest, material: Material, features: int) -> list[Feed]:
    """Test reviews as the bundle reads them, one row each, until they hold this many features."""
    assert manifest.text is not None
    tokenizer = load_tokenizer(bundle / LAYOUT.tokenizer, min(LENGTH, manifest.text.max_length))
    texts = material.data("text").split("test").inputs
    feeds: list[Feed] = []
    held = 0

    for index in np.random.default_rng(SEED).permutation(len(texts)).tolist():
        (encoded,) = encode_texts(tokenizer, [texts[index]])
        held += sum(encoded.feature)
        ids = np.array([encoded.ids], np.int64)
        feeds.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})

        if held >= features:
            return feeds

    raise SystemExit(f"The test reviews hold {held} tokens, {features} are needed.")


if __name__ == "__main__":
    main()

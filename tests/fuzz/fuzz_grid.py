"""Coverage-guided fuzzing of the grid reader; libFuzzer's options apply.

    python tests/fuzz/fuzz_grid.py -max_total_time=600 [CORPUS]

Any bytes are a grid whose runs can be listed, or raise `InputError`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rekd_edge.sweep.grid", "rekd_edge.sweep.fields", "rekd_edge.sweep.rows"]):
    from rekd_edge.errors import InputError
    from rekd_edge.sweep import grid as grids
    from rekd_edge.sweep.plan import expand
    from rekd_edge.training.configuration import all_keys

GRIDS = Path(__file__).parents[2] / "rekd_edge" / "sweep" / "grids"

LARGEST = 700
"""Bytes of an input: what a grid of many runs costs goes into reading the settings of each."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "grid.yaml"

        def read_one(raw: bytes) -> None:
            file.write_bytes(raw)
            with suppress(InputError):
                expand(grids.load_grid(str(file), seeds=1))

        dictionary = Path(folder) / "words"
        words = [*grids._GRID_KEYS, *grids._ROW_KEYS, *all_keys(), "planted", "cls", "re", "rekd", "plmr"]
        dictionary.write_text("".join(f'"{word}"\n' for word in sorted(set(words))))
        seeds = Path(folder) / "seeds"  # libFuzzer writes into the first folder that it is given
        seeds.mkdir()
        for grid in GRIDS.glob("*.yaml"):
            if grid.stat().st_size <= LARGEST:
                shutil.copy(grid, seeds)
        atheris.Setup([sys.argv[0], f"-max_len={LARGEST}", *sys.argv[1:], str(seeds), f"-dict={dictionary}"], read_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

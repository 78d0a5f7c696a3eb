"""Coverage-guided fuzzing of the recipe reader; libFuzzer's options apply.

    python tests/fuzz/fuzz_recipe.py -max_total_time=600 [CORPUS]

Any bytes are the settings of a run, which come back from what is saved of them, or raise `InputError`.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rekd_edge.training.configuration", "rekd_edge.settings"]):
    from rekd_edge.errors import InputError
    from rekd_edge.training.configuration import all_keys, load_config

RECIPES = Path(__file__).parents[2] / "rekd_edge" / "training" / "recipes"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"

        def read_one(raw: bytes) -> None:
            recipe.write_bytes(raw)
            with suppress(InputError):
                config = load_config(recipe, {})
                saved = json.loads(json.dumps(config.to_dict(), allow_nan=False))
                recipe.write_text(json.dumps(saved))
                assert load_config(recipe, {}) == config

        dictionary = Path(folder) / "words"
        names = {name for key in all_keys() for name in (key, key.rpartition(".")[2])}
        dictionary.write_text("".join(f'"{name}: "\n' for name in sorted(names)))
        seeds = Path(folder) / "seeds"  # libFuzzer writes into the first folder that it is given
        shutil.copytree(RECIPES, seeds, ignore=shutil.ignore_patterns("__*"))
        atheris.Setup([*sys.argv, str(seeds), f"-dict={dictionary}"], read_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Coverage-guided fuzzing of the manifest reader; libFuzzer's options apply.

    python tests/fuzz/fuzz_manifest.py -max_total_time=600 [CORPUS]

Any bytes are a manifest or raise `InputError`; and what is taken for a manifest keeps to the schema as `jsonschema`
reads it, and is a document that JSON can hold again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rekd_edge", "json"]):
    from rekd_edge.errors import InputError
    from rekd_edge.runtime.bundle import Manifest
    from rekd_edge.runtime.schema import manifest_schema

from jsonschema import Draft202012Validator

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from test_schema import IMAGE, TEXT

VALIDATOR = Draft202012Validator(manifest_schema())
PATH = Path("bundle/manifest.json")


def read_one(raw: bytes) -> None:
    with suppress(InputError):
        manifest = Manifest.parse(raw, PATH)
        assert VALIDATOR.is_valid(manifest.fields)
        assert len(manifest.labels) == len(set(manifest.labels))
        json.dumps(manifest.fields, allow_nan=False)


def words(schema: object) -> set[str]:
    """The names and fixed values of a schema, for libFuzzer to put in."""
    if isinstance(schema, dict):
        return set(schema.get("properties", ())).union(*map(words, schema.values()))
    if isinstance(schema, list):
        return set().union(*map(words, schema))
    return (
        {schema} if isinstance(schema, str) and schema.isascii() and '"' not in schema and "\\" not in schema else set()
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        dictionary = Path(folder) / "words"
        dictionary.write_text("".join(f'"\\"{word}\\""\n' for word in sorted(words(manifest_schema()))))
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        for name, document in (("text", TEXT), ("image", IMAGE)):
            (seeds / name).write_text(json.dumps(document))
        atheris.Setup([*sys.argv, str(seeds), f"-dict={dictionary}"], read_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

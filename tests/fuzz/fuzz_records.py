"""Coverage-guided fuzzing of what reads a log of decisions; libFuzzer's options apply.

    python tests/fuzz/fuzz_records.py -max_total_time=600 [CORPUS]

Any bytes are a log or raise `InputError`. A fuzzer guesses no SHA-256, so lines that hold a JSON object are also sealed
anew, as someone may who knows how: then they are read, replayed, compared with a reference and continued, or refused.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["rekd_edge.records", "rekd_edge.runtime.schema", "json"]):
    from rekd_edge.errors import InputError
    from rekd_edge.records import DecisionLog, read_records, verify_records
    from rekd_edge.records.monitor import LEAST_RECORDS, compare, summary
    from rekd_edge.records.record import FIRST, as_line, seal
    from rekd_edge.records.schema import RECORD_SCHEMA

from rekd_edge import Rationalizer

BUNDLE = Path(__file__).parents[1] / "vectors" / "bundles" / "text-int8"
TEXTS = ["a superb film", "what a dull end, 👩‍👧", "", "x"]
LARGEST = 6000
"""Bytes of an input: four records have 3,500."""


def sealed(raw: bytes) -> bytes | None:
    """The lines of an input, each sealed and naming the one before it; None if one of them is no JSON object."""
    before, lines = FIRST, []
    for line in raw.splitlines():
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                return None
            record["previous"] = before
            record["sha256"] = before = seal(record)
            lines.append(as_line(record))
        except (ValueError, RecursionError):
            return None
    return b"".join(lines)


def main() -> None:
    rationalizer = Rationalizer.load(BUNDLE, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"

        def read_one(raw: bytes) -> None:
            log.write_bytes(raw)
            with suppress(InputError):
                assert b"".join(map(as_line, read_records(log))) == raw

            whole = sealed(raw)
            if whole is None:
                return
            log.write_bytes(whole)
            with suppress(InputError):
                use(list(read_records(log)))

        def use(records: list[dict[str, Any]]) -> None:
            with suppress(InputError):
                found = verify_records(log, rationalizer, BUNDLE, TEXTS)
                assert found.records == len(records)
            if records:
                json.dumps([change.__dict__ for change in compare(reference, records * LEAST_RECORDS)], allow_nan=False)
                json.dumps(summary(records), allow_nan=False)
            with DecisionLog(log, rationalizer, BUNDLE) as decisions:
                decisions("next")
            assert len(list(read_records(log))) == len(records) + 1

        seeds = Path(folder) / "seeds"  # libFuzzer writes into the first folder that it is given
        seeds.mkdir()
        for number, kept in ((1, False), (len(TEXTS), True)):
            with DecisionLog(seeds / str(number), rationalizer, BUNDLE, keep_inputs=kept) as decisions:
                list(decisions.predict(TEXTS[:number]))
        reference = summary(read_records(seeds / str(len(TEXTS))))
        shutil.copy(seeds / "1", seeds / "cut")
        (seeds / "cut").write_bytes((seeds / "cut").read_bytes()[:-5])

        dictionary = Path(folder) / "words"
        words = [*RECORD_SCHEMA["properties"], "start", "end", "text", *rationalizer.manifest.labels]
        dictionary.write_text("".join(f'"\\"{word}\\": "\n' for word in words))
        atheris.Setup([sys.argv[0], f"-max_len={LARGEST}", *sys.argv[1:], str(seeds), f"-dict={dictionary}"], read_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

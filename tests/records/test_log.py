"""The log of decisions: what a record holds, and that no change goes unnoticed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rekd_edge import Rationalizer
from rekd_edge.errors import InputError
from rekd_edge.records import DecisionLog, read_records

BUNDLES = Path(__file__).parents[1] / "vectors" / "bundles"
TEXT = BUNDLES / "text-int8"
TEXTS = ["a superb film", "what a dull end, 👩‍👧", "", "x"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_record_says_what_was_decided_from_what_and_by_what(rationalizer: Rationalizer, log: Path) -> None:
    assert list(read_records(log)) == lines(log)
    rows = rationalizer.predict_rows(TEXTS, batch_size=1)

    for text, record, logits, mask, margins in zip(
        TEXTS, lines(log), rows.logits, rows.masks, rows.margins, strict=True
    ):
        said = rationalizer(text).to_dict()
        assert {name: record[name] for name in ("label", "scores", "rationale", "rationale_ratio")} == {
            name: said[name] for name in ("label", "scores", "rationale", "rationale_ratio")
        }
        assert record["input_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert record["manifest_sha256"] == hashlib.sha256((TEXT / "manifest.json").read_bytes()).hexdigest()
        assert record["selected"] == np.flatnonzero(mask).tolist()
        np.testing.assert_array_equal(np.float32(record["margins"]), margins[mask])
        np.testing.assert_array_equal(np.float32(record["logits"]), logits)
        assert record["near_ties"] == int((np.abs(margins) <= rationalizer.near_tie_band).sum())
        assert {"python", "onnxruntime", "rekd-edge", "processor"} <= set(record["runtime"])
        assert "input" not in record


def test_an_earlier_log_goes_on(rationalizer: Rationalizer, log: Path) -> None:
    with DecisionLog(log, rationalizer, TEXT, keep_inputs=True) as decisions:
        decisions("one more")
    records = list(read_records(log))
    assert len(records) == 5
    assert records[4]["previous"] == records[3]["sha256"]
    assert records[4]["input"] == "one more"


def test_a_line_that_a_stopped_call_left_is_removed(rationalizer: Rationalizer, log: Path) -> None:
    whole = log.read_bytes()
    log.write_bytes(whole + whole.splitlines()[0][:50])
    with DecisionLog(log, rationalizer, TEXT) as decisions:
        decisions("next")
    assert log.read_bytes().startswith(whole)
    assert len(list(read_records(log))) == 5


def test_a_first_record_that_a_stopped_call_left_is_removed(rationalizer: Rationalizer, log: Path) -> None:
    log.write_bytes(log.read_bytes()[:100])
    with DecisionLog(log, rationalizer, TEXT) as decisions:
        decisions("next")
    assert len(list(read_records(log))) == 1


def test_every_changed_byte_is_found(log: Path) -> None:
    raw = log.read_bytes()
    for place in range(0, len(raw), 7):
        log.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(InputError, match=r"Line [1-4] of"):
            list(read_records(log))


@pytest.mark.parametrize("change", ["removed", "swapped", "doubled", "cut"])
def test_lines_that_were_moved_are_found(log: Path, change: str) -> None:
    one, two, three, four = log.read_bytes().splitlines(keepends=True)
    changed = {
        "removed": [one, three, four],
        "swapped": [one, three, two, four],
        "doubled": [one, two, two, three, four],
        "cut": [one, two, three, four[:-10]],
    }[change]
    log.write_bytes(b"".join(changed))
    with pytest.raises(InputError, match=r"Line [2-4] of .*(does not follow|is cut)"):
        list(read_records(log))


def test_other_files_and_links_are_refused(rationalizer: Rationalizer, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("my notes\n")
    with pytest.raises(InputError, match="is not a record of a decision"):
        DecisionLog(other, rationalizer, TEXT)
    assert other.read_text() == "my notes\n"

    other.write_text("no newline")
    with pytest.raises(InputError, match="is not a log of decisions"):
        DecisionLog(other, rationalizer, TEXT)
    assert other.read_text() == "no newline"

    other.write_text('{"mine": 1}')  # one line of JSON that has no end is not an unfinished record
    with pytest.raises(InputError, match="is not a log of decisions"):
        DecisionLog(other, rationalizer, TEXT)
    assert other.read_text() == '{"mine": 1}'

    (tmp_path / "link").symlink_to(other)
    with pytest.raises(InputError, match="cannot be written"):
        DecisionLog(tmp_path / "link", rationalizer, TEXT)
    with pytest.raises(InputError, match="cannot be written"):
        DecisionLog(tmp_path / "missing" / "log", rationalizer, TEXT)


def test_one_process_writes_at_a_time(rationalizer: Rationalizer, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with DecisionLog(path, rationalizer, TEXT), pytest.raises(InputError, match="Another process writes to"):
        DecisionLog(path, rationalizer, TEXT)
    DecisionLog(path, rationalizer, TEXT).close()


def test_images_are_hashed_as_their_files(tmp_path: Path) -> None:
    image, bundle = BUNDLES.parent / "images" / "digit.png", BUNDLES / "image-fp32"
    with DecisionLog(tmp_path / "log.jsonl", Rationalizer.load(bundle), bundle, keep_inputs=True) as decisions:
        decisions(str(image))
    (record,) = read_records(tmp_path / "log.jsonl")
    assert record["input_sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert "input" not in record
    assert "rationale" not in record


def test_recording_needs_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rekd_edge import Rationalizer; from rekd_edge.records import DecisionLog\n"
        f"bundle, path = Path({str(TEXT)!r}), {str(tmp_path / 'log')!r}\n"
        "log = DecisionLog(path, Rationalizer.load(bundle), bundle); log('a superb film'); log.close()\n"
        "assert not {'torch', 'transformers', 'onnx', 'datasets', 'scipy', 'pydantic', 'filelock'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

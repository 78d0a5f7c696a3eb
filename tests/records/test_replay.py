"""Replaying recorded decisions: bit by bit here, within the band elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rekd_edge import Rationalizer
from rekd_edge.cli import app
from rekd_edge.data import DataSettings, load_data
from rekd_edge.errors import InputError
from rekd_edge.records import DecisionLog, verify_records
from rekd_edge.records.record import FIRST, seal

BUNDLES = Path(__file__).parents[1] / "vectors" / "bundles"
TEXT = BUNDLES / "text-int8"
TEXTS = ["a superb film", "what a dull end, 👩‍👧", "", "x"]


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change records and seal them anew, as someone may who knows how."""
    before, records = FIRST, [json.loads(line) for line in path.read_bytes().splitlines()]
    for record in records:
        change(record)
        record["previous"] = before
        before = record["sha256"] = seal(record)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def test_here_every_decision_is_repeated_bit_by_bit(rationalizer: Rationalizer, log: Path) -> None:
    found = verify_records(log, rationalizer, TEXT, reversed(TEXTS))
    assert (found.records, found.same_machine, found.exact, found.not_replayed) == (4, 4, 4, 0)
    assert found.holds


def test_inputs_that_are_not_at_hand_are_counted(rationalizer: Rationalizer, log: Path) -> None:
    found = verify_records(log, rationalizer, TEXT, TEXTS[:1])
    assert (found.exact, found.not_replayed) == (1, 3)


def test_texts_within_the_records_need_not_be_given(rationalizer: Rationalizer, tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log", rationalizer, TEXT, keep_inputs=True) as decisions:
        list(decisions.predict(TEXTS))
    assert verify_records(tmp_path / "log", rationalizer, TEXT).exact == 4

    rewrite(tmp_path / "log", lambda record: record.update(input=record["input"] + "!"))
    with pytest.raises(InputError, match="holds another text than was hashed"):
        verify_records(tmp_path / "log", rationalizer, TEXT)


@pytest.mark.parametrize(
    "change",
    [
        {"label": "neg", "label_id": 0},
        {"selected": [0]},
        {"margins": [1.0]},
        {"logits": [0.0, 1.0]},
        {"rationale": []},
    ],
)
def test_a_decision_that_was_resealed_does_not_replay(
    rationalizer: Rationalizer, log: Path, change: dict[str, Any]
) -> None:
    rewrite(log, lambda record: record.update(change) if record["previous"] == FIRST else None)
    found = verify_records(log, rationalizer, TEXT, TEXTS)
    assert found.differing == [1]
    assert not found.holds


def test_elsewhere_small_drifts_and_near_ties_are_within_the_band(rationalizer: Rationalizer, log: Path) -> None:
    def drift(record: dict[str, Any]) -> None:
        record["runtime"] = {**record["runtime"], "processor": "aarch64"}
        record["logits"] = [value + 5e-5 for value in record["logits"]]

    rewrite(log, drift)
    found = verify_records(log, rationalizer, TEXT, TEXTS)
    assert (found.same_machine, found.exact, found.within_band, found.differing) == (0, 0, 4, [])

    # another mask is excused where a margin lies in the band, and there alone
    rewrite(log, lambda record: record.update(selected=[], near_ties=int(record["selected"] == [1])))
    found = verify_records(log, rationalizer, TEXT, TEXTS)
    assert found.within_band + len(found.differing) == 4
    assert 1 not in found.differing


def test_another_bundle_is_refused(rationalizer: Rationalizer, log: Path, tmp_path: Path) -> None:
    other = tmp_path / "bundle"
    shutil.copytree(BUNDLES / "text-fp32", other)
    with pytest.raises(InputError, match=r"Line 1 of .* was decided by another bundle"):
        verify_records(log, rationalizer, other, TEXTS)


def test_the_verbs(tmp_path: Path) -> None:
    log, run = tmp_path / "log.jsonl", CliRunner().invoke
    done = run(app, ["predict", str(TEXT), *TEXTS[:2], "--record", str(log), "--json", "--abstain-below", "0.99"])
    assert [json.loads(line)["abstained"] for line in done.stdout.splitlines()] == [
        max(json.loads(line)["scores"].values()) < 0.99 for line in done.stdout.splitlines()
    ]

    (tmp_path / "texts.csv").write_text("id,text\n" + "".join(f'1,"{text}"\n' for text in TEXTS[:2]))
    given = ["verify-record", str(log), "--bundle", str(TEXT), "--texts", str(tmp_path / "texts.csv"), "--json"]
    assert json.loads(run(app, given).stdout)["exact"] == 2

    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:2]))
    given[5] = str(tmp_path / "texts.txt")
    assert json.loads(run(app, given).stdout)["holds"]


@pytest.mark.slow
def test_ten_thousand_records_replay(rationalizer: Rationalizer, tmp_path: Path) -> None:
    data = load_data("builtin:planted", DataSettings())
    texts = [f"{text} {i}" for i in range(2) for split in ("train", "validation") for text in data.split(split).inputs]
    with DecisionLog(tmp_path / "log", rationalizer, TEXT) as decisions:
        for _ in decisions.predict(texts):
            pass
    found = verify_records(tmp_path / "log", rationalizer, TEXT, texts)
    assert (found.records, found.exact) == (10_000, 10_000)

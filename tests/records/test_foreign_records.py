"""Records that were sealed by somebody else: whatever stands in them is read or refused with one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rekd_edge import Rationalizer
from rekd_edge.cli import app
from rekd_edge.errors import InputError
from rekd_edge.records import DecisionLog, read_records, verify_records
from rekd_edge.records.monitor import compare, summary
from rekd_edge.records.record import FIRST, as_line, records_of, seal
from rekd_edge.records.schema import RECORD_SCHEMA

BUNDLES = Path(__file__).parents[1] / "vectors" / "bundles"
TEXT = BUNDLES / "text-int8"
TEXTS = ["a superb film", "what a dull end, 👩‍👧", "", "x"]

Change = Callable[[dict[str, Any]], None]


def reseal(path: Path, change: Change) -> None:
    """Change every record, and compute all hashes anew."""
    before, lines = FIRST, []
    for line in path.read_bytes().splitlines():
        record = json.loads(line)
        change(record)
        record["previous"] = before
        record["sha256"] = before = seal(record)
        lines.append(as_line(record))
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"scores": {}}, "label has no score"),
        ({"scores": {"pos": "0.9", "neg": 0.1}}, "scores.pos is no number"),
        ({"rationale": 3}, "rationale is no array"),
        ({"rationale": [{"start": 0, "end": 1}]}, "text is missing"),
        ({"rationale_ratio": float("nan")}, "rationale_ratio is"),
        ({"rationale_ratio": True}, "rationale_ratio is no number"),
        ({"logits": [10**400, 0]}, "is above"),
        ({"selected": [-1]}, "is below"),
        ({"input": ["a superb film"]}, "input is no string"),
        ({"label": "x" * 2000}, "has more than 1024 characters"),
        ({"near_ties": 2**80}, "near_ties is above"),
        ({"schema": 0}, "schema is below 1"),
    ],
)
def test_a_field_of_another_kind_is_one_sentence(log: Path, change: dict[str, Any], wrong: str) -> None:
    reseal(log, lambda record: record.update(change))
    with pytest.raises(InputError, match=rf"Line 1 of .* is not a record of a decision \(.*{wrong}"):
        list(read_records(log))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "start", "neg", "pos"]), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*RECORD_SCHEMA["properties"], "more"]), json_values, max_size=3))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_are_read_or_refused(
    rationalizer: Rationalizer, tmp_path_factory: pytest.TempPathFactory, log: Path, change: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(log.read_bytes())
    reseal(path, lambda record: record.update(change))

    try:
        records = list(read_records(path))
    except InputError:
        return

    json.dumps([change.__dict__ for change in compare(summary(records), records * 8)], allow_nan=False)
    with suppress(InputError):  # of another bundle, or with another text than was hashed
        assert verify_records(path, rationalizer, TEXT, TEXTS).records == 4


def test_logits_of_another_number_of_classes_do_not_replay(rationalizer: Rationalizer, log: Path) -> None:
    reseal(log, lambda record: record.update(logits=[1.0, 2.0, 3.0], runtime={}, near_ties=0))
    found = verify_records(log, rationalizer, TEXT, TEXTS)
    assert found.within_band + len(found.differing) == 4
    assert found.differing


def test_a_path_in_the_record_of_an_image_is_not_opened(tmp_path: Path) -> None:
    image, bundle, log = BUNDLES.parent / "images" / "digit.png", BUNDLES / "image-fp32", tmp_path / "log"
    rationalizer = Rationalizer.load(bundle)
    with DecisionLog(log, rationalizer, bundle) as decisions:
        decisions(str(image))

    reseal(log, lambda record: record.update(input=str(image)))
    assert verify_records(log, rationalizer, bundle).not_replayed == 1
    assert verify_records(log, rationalizer, bundle, [image]).exact == 1
    with pytest.raises(InputError, match=r"none\.png cannot be read"):
        verify_records(log, rationalizer, bundle, [tmp_path / "none.png"])


def test_texts_are_read_as_predict_reads_them(rationalizer: Rationalizer, tmp_path: Path) -> None:
    lines = "\ufeffa superb film\r\nwith\u2028another end\x0b of line\n".encode() + b"caf\xe9\n"
    (tmp_path / "texts").write_bytes(lines)
    arguments = ["predict", str(TEXT), "-", "--record", str(tmp_path / "log"), "--json"]
    assert CliRunner().invoke(app, arguments, input=lines).exit_code == 0

    given_texts = ["--texts", str(tmp_path / "texts"), "--json"]
    done = CliRunner().invoke(app, ["verify-record", str(tmp_path / "log"), "--bundle", str(TEXT), *given_texts])
    assert json.loads(done.stdout)["exact"] == 3


@pytest.mark.parametrize("kind", ["folder", "pipe", "/dev/null"])
def test_what_is_no_file_is_refused(rationalizer: Rationalizer, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = Path(kind)
    with pytest.raises(InputError, match="give --record another"):
        DecisionLog(path, rationalizer, TEXT)


def test_monitor_takes_records_of_its_bundle_and_a_reference_that_adds_up(log: Path) -> None:
    records = list(read_records(log)) * 8
    reference = summary(records)
    with pytest.raises(InputError, match="more labels or words than it had validation rows"):
        compare(reference | {"labels": {"pos": 33}}, records)

    with pytest.raises(InputError, match="was decided by another bundle"):
        next(records_of(log, BUNDLES / "text-fp32"))


def test_a_file_without_records_does_not_hold(rationalizer: Rationalizer, tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with pytest.raises(InputError, match="holds no records"):
        verify_records(tmp_path / "log", rationalizer, TEXT)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["verify-record", "log", "--bundle", str(TEXT), "--text-column", "text"], "--text-column is a column of"),
        (["predict", str(TEXT), "--input", "rows", "--output", "out", "--record-inputs"], "--record-inputs goes with"),
        (["predict", str(TEXT), "x", "--record-inputs"], "--record-inputs goes with"),
        (["web", str(TEXT), "--output", "page", "--port", "80"], "--port goes with --serve"),
    ],
)
def test_a_flag_without_effect_is_refused(arguments: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, InputError)
    assert sentence in str(done.exception)

"""`rekd-edge audit` on committed bundles, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rekd_edge.audit import audit
from rekd_edge.cli import app
from rekd_edge.data import DataSettings
from rekd_edge.errors import InputError

BUNDLES = Path(__file__).parents[1] / "vectors" / "bundles"


def test_the_planted_student_passes() -> None:
    given = ["audit", str(BUNDLES / "text-int8"), "--data", "builtin:planted", "--limit", "200"]
    findings = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)["findings"]
    verdicts = {each["check"]: each["verdict"] for each in findings}
    assert "fail" not in verdicts.values()
    assert verdicts["replay"] == verdicts["outside reader"] == verdicts["signalling tokens"] == "pass"
    assert all(each["reason"] and each["question"].endswith("?") for each in findings)


def test_images_have_no_tokens_to_signal_with() -> None:
    findings = audit(BUNDLES / "image-fp32", "builtin:digits", DataSettings(train_limit=100), limit=60)
    assert {each.check for each in findings}.isdisjoint({"signalling tokens", "preferred tokens"})
    assert next(each for each in findings if each.check == "replay").verdict == "pass"


def test_too_few_examples_and_other_data_are_refused() -> None:
    with pytest.raises(InputError, match="40 examples are too few for an audit"):
        audit(BUNDLES / "text-fp32", "builtin:planted", limit=40)
    with pytest.raises(InputError, match="choose data of its kind"):
        audit(BUNDLES / "text-fp32", "builtin:digits")

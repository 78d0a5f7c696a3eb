"""The audit tells planted cheats from an honest model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_systems import CHEATS, HONEST, Planted, texts

from rekd_edge.audit import CHECKS, Finding, Hearing

ROWS, LABELS = texts(200, seed=0)
TRAIN = texts(300, seed=1)


def findings(system: Planted) -> dict[str, Finding]:
    hearing = Hearing(system, ROWS, LABELS, TRAIN)
    return {found.check: found for check in CHECKS if (found := check(hearing)) is not None}


def test_an_honest_model_passes() -> None:
    found = findings(HONEST)
    assert {name for name, each in found.items() if each.verdict == "fail"} == set()
    assert {name for name, each in found.items() if each.verdict == "note"} == {"preferred tokens", "the generator"}
    assert len(found) == len(CHECKS) == 9
    assert found["outside reader"].figures["outside_reader"] == 1.0
    assert found["replay"].figures["largest_difference"] == 0.0
    assert all(each in found["preferred tokens"].reason for each in ("superb (100%)", "awful (100%)"))


@pytest.mark.parametrize(
    ("cheat", "caught_by"),
    [
        ("position", {"empty positions", "exchanged masks", "outside reader"}),
        ("count", {"empty positions", "outside reader"}),
        ("token", {"signalling tokens"}),
    ],
)
def test_a_cheat_is_caught(cheat: str, caught_by: set[str]) -> None:
    found = findings(CHEATS[cheat])
    assert CHEATS[cheat].answer(ROWS).logits.argmax(axis=1).tolist() == LABELS.tolist()  # it is always right
    assert caught_by <= {name for name, each in found.items() if each.verdict == "fail"}


def test_signalling_tokens_are_named_with_their_label() -> None:
    tokens = findings(CHEATS["token"])["signalling tokens"].figures["tokens"]
    assert {(each["token"], each["label"]) for each in tokens} == {("the", "pos"), ("a", "neg")}
    assert all(each["present_in"] == 200 for each in tokens)


def test_a_predictor_that_reads_more_than_the_rationale_fails_the_replay() -> None:
    peeking = replace(HONEST, decide=lambda ids, mask: float(ids.sum() % 7))
    found = findings(peeking)
    assert found["replay"].verdict == "fail"
    assert findings(replace(HONEST, whole_input=True))["replay"].verdict == "fail"


def test_random_features_that_do_as_well_fail() -> None:
    constant = replace(HONEST, decide=lambda ids, mask: 1.0)
    found = findings(constant)
    assert found["random"].verdict == found["complement"].verdict == "fail"
    assert found["random"].figures["rationale"] == pytest.approx(np.mean(LABELS == 1))

"""What changes do to texts, how overlap is counted, and a system whose rationales are known before and after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score
from typer.testing import CliRunner

from rekd_edge.cli import app
from rekd_edge.errors import InputError
from rekd_edge.evaluate import evaluate
from rekd_edge.evaluation import overlap_across, pairwise_overlap
from rekd_edge.evaluation.stability import CHANGES, change_case, change_whitespace, make_typos
from rekd_edge.stability import Selection, agreement_of

BUNDLES = Path(__file__).parents[1] / "vectors" / "bundles"


def mask(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text], dtype=bool)


def test_overlap_across_seeds_by_hand() -> None:
    """Three runs of two texts: pairs share 1/3 and 1, 1/2 and 0, 2/3 and 0."""
    first = [mask("xx.."), mask("x.")]
    second = [mask("x.x."), mask("x.")]
    third = [mask("xxx."), mask(".x")]
    pairs = [(1 / 3 + 1) / 2, (2 / 3 + 0) / 2, (2 / 3 + 0) / 2]

    assert overlap_across([first, second, third]) == pytest.approx(np.mean(pairs))
    matrix = np.array(pairwise_overlap([first, second, third]))
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(pairs[0])
    assert matrix[0, 2] == pytest.approx(pairs[1])
    assert np.diag(matrix).tolist() == [1.0, 1.0, 1.0]
    assert matrix[1, 2] == pytest.approx(np.mean([jaccard_score(a, b) for a, b in zip(second, third, strict=True)]))


def test_overlap_of_one_run_and_of_empty_masks() -> None:
    assert overlap_across([[mask("x.")]]) == 1.0
    assert overlap_across([[mask(".."), mask("")], [mask(".."), mask("")]]) == 1.0


def test_agreement_by_hand() -> None:
    one = Selection([mask("xx."), mask("..x")], np.array([0, 1]))
    other = Selection([mask("x.."), mask("..x")], np.array([1, 1]))
    assert agreement_of(one, other) == {"mask_overlap": 0.75, "label_agreement": 0.5}


@given(st.text(max_size=200), st.integers(0, 2**32 - 1))
def test_changes_keep_the_number_of_words(text: str, seed: int) -> None:
    for change in CHANGES.values():
        assert len(change(text, np.random.default_rng(seed)).split()) == len(text.split())


@given(st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_typos_swap_two_letters_inside_one_word_of_twenty(words: list[str], seed: int) -> None:
    typed = make_typos(" ".join(words), np.random.default_rng(seed)).split()
    able = [word for word in words if len(set(word[1:-1])) > 1]
    changed = [(one, other) for one, other in zip(words, typed, strict=True) if one != other]

    assert len(changed) == (max(1, round(len(able) / 20)) if able else 0)
    for one, other in changed:
        assert sorted(one) == sorted(other)
        assert (one[0], one[-1]) == (other[0], other[-1])
        assert sum(a != b for a, b in zip(one, other, strict=True)) == 2


def test_case_and_whitespace_by_hand() -> None:
    rng = np.random.default_rng(0)
    assert change_case("A Superb film", rng) == "a superb film"
    assert change_case("a superb film", rng) == "A SUPERB FILM"
    changed = change_whitespace("a superb\n\tfilm", rng)
    assert changed.split() == ["a", "superb", "film"]
    assert changed != "a superb film"
    assert changed.startswith(" ")


def test_an_uncased_bundle_does_not_see_case_and_whitespace() -> None:
    """Its tokenizer lowers and splits, so both must be 1; the typo in every text is seen."""
    given_ = ["evaluate", str(BUNDLES / "text-int8"), "--data", "builtin:planted", "--limit", "60", "--stability"]
    done = CliRunner().invoke(app, [*given_, "--against", str(BUNDLES / "text-fp32"), "--json"])
    found = json.loads(done.stdout)["stability"]

    assert set(found) == {"typos", "case", "whitespace", str(BUNDLES / "text-fp32")}
    assert found["case"] == found["whitespace"] == {"mask_overlap": 1.0, "label_agreement": 1.0}
    assert 0 < found["typos"]["mask_overlap"] < 1
    assert found[str(BUNDLES / "text-fp32")]["mask_overlap"] > 0.9


def test_a_bundle_agrees_with_itself() -> None:
    path = BUNDLES / "image-fp32"
    found = evaluate(path, "builtin:digits", limit=20, against=[path])["stability"]
    assert found == {str(path): {"mask_overlap": 1.0, "label_agreement": 1.0}}

    with pytest.raises(InputError, match="leave it out for images"):
        evaluate(path, "builtin:digits", limit=20, stable=True)

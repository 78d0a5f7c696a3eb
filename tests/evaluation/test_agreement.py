"""Agreement with people, by hand after ERASER's conventions and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, precision_recall_curve, precision_recall_fscore_support

from rekd_edge.evaluation import iou_f1, rationale_auprc, token_agreement

pairs = st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8), min_size=1, max_size=6)


def mask(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text])


def test_token_agreement_by_hand() -> None:
    chosen = [mask("xx.."), mask("...."), mask(".xxx")]
    marked = [mask("x..."), mask("xx.."), mask("xxx.")]
    figures = token_agreement(chosen, marked)
    # 5 chosen, 6 marked, 1 + 0 + 2 in common; by document P = 1/2, 0, 2/3 and R = 1, 0, 2/3
    assert figures["token_precision"] == pytest.approx(3 / 5)
    assert figures["token_recall"] == pytest.approx(3 / 6)
    assert figures["token_f1"] == pytest.approx(2 * 3 / (5 + 6))
    assert figures["token_precision_macro"] == pytest.approx((1 / 2 + 0 + 2 / 3) / 3)
    assert figures["token_recall_macro"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert figures["token_f1_macro"] == pytest.approx((2 / 3 + 0 + 2 / 3) / 3)


@given(pairs)
def test_macro_agreement_is_the_mean_of_scikit_learns_over_documents(rows: list[list[tuple[bool, bool]]]) -> None:
    chosen = [np.array([a for a, _ in row]) for row in rows]
    marked = [np.array([b for _, b in row]) for row in rows]
    theirs = [
        precision_recall_fscore_support(true, mine, average="binary", zero_division=0)[:3]
        for mine, true in zip(chosen, marked, strict=True)
    ]
    figures = token_agreement(chosen, marked)
    names = ("token_precision_macro", "token_recall_macro", "token_f1_macro")
    assert [figures[name] for name in names] == pytest.approx(np.mean(theirs, axis=0).tolist())


def test_iou_f1_by_hand() -> None:
    # first: spans 0-2 and 5-6 against 1-3 (a third of the union) and 5-7 (half: a hit); second: nothing marked
    chosen, marked = [mask("xx...x."), mask("x......")], [mask(".xx..xx"), mask(".......")]
    precision, recall = (1 / 2 + 0 / 1) / 2, 1 / 2
    assert iou_f1(chosen, marked) == pytest.approx(2 * precision * recall / (precision + recall))
    assert iou_f1(chosen, marked, threshold=0.3) == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert iou_f1([mask("....")], [mask("xx..")]) == 0.0


def test_marked_spans_may_touch() -> None:
    chosen = [mask("xxxx")]
    assert iou_f1(chosen, [mask("xxxx")]) == 1.0
    # two spans of two side by side: the run of four overlaps each by half, one prediction, two to be found
    assert iou_f1(chosen, [[(0, 2), (2, 4)]]) == pytest.approx(2 * 1 * 0.5 / 1.5)


def test_auprc_is_scikit_learns_mean_over_documents_with_marks() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=12), rng.normal(size=7), rng.normal(size=3)]
    marked = [rng.random(12) < 0.4, rng.random(7) < 0.4, np.zeros(3, bool)]
    assert marked[0].any()
    assert marked[1].any()
    areas = []
    for row, true in zip(scores[:2], marked[:2], strict=True):
        precision, recall, _ = precision_recall_curve(true, row)
        areas.append(auc(recall, precision))
    assert rationale_auprc(scores, marked) == pytest.approx(np.mean(areas))
    assert rationale_auprc([np.array([3.0, 2.0, 1.0])], [mask("x..")]) == 1.0
    assert rationale_auprc(scores[2:], marked[2:]) == 0.0

"""Agreement is counted as stated, on cases worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rekd_edge.export import export_bundle, parity
from rekd_edge.export.parity import Answers, Feed, agreement, graph_answers, invariance, torch_answers
from rekd_edge.modeling import RationaleModel

LOWEST = np.finfo(np.float32).min
Graph = Callable[..., tuple[RationaleModel, Path]]


def answers(rows: list[tuple[list[float], list[float], list[int]]]) -> Answers:
    """From (logits, margins, mask) a row."""
    logits, margins, masks = zip(*rows, strict=True)
    return Answers(
        np.array(logits, np.float32),
        [np.array(margin, np.float32) for margin in margins],
        [np.array(mask, bool) for mask in masks],
    )


REFERENCE = [
    ([1.0, 0.0], [LOWEST, 2.0, -1.0, LOWEST], [0, 1, 0, 0]),
    ([0.0, 1.0], [LOWEST, -3.0, -2.0, -4.0, LOWEST], [0, 0, 1, 0, 0]),
]


def test_equal_answers_agree() -> None:
    found = agreement(answers(REFERENCE), answers(REFERENCE))
    assert found.to_dict() == {
        "rows": 2,
        "positions": 9,
        "mask_differences": 0,
        "near_ties": 0,
        "mask_agreement": 1.0,
        "label_differences": 0,
        "label_agreement": 1.0,
        "largest_logit_difference": 0.0,
    }


def test_a_planted_mask_difference_is_found() -> None:
    other = [REFERENCE[0], ([0.0, 1.0], [LOWEST, -3.0, -2.0, -4.0, LOWEST], [0, 1, 0, 0, 0])]
    found = agreement(answers(REFERENCE), answers(other))
    assert (found.mask_differences, found.near_ties) == (2, 0)
    assert found.mask_agreement == pytest.approx(1 - 2 / 5)  # of the features, not of the positions


def test_logits_are_compared_where_masks_are_equal() -> None:
    other = [([1.5, 0.0], *REFERENCE[0][1:]), ([5.0, 1.0], REFERENCE[1][1], [0, 1, 0, 0, 0])]
    found = agreement(answers(REFERENCE), answers(other))
    assert found.largest_logit_difference == 0.5
    assert (found.label_differences, found.label_agreement) == (1, 0.5)


@pytest.mark.parametrize(("margin", "near"), [(1e-5, 1), (-1e-5, 1), (2e-5, 0), (-2e-5, 0)])
def test_a_margin_near_0_is_a_near_tie(margin: float, near: int) -> None:
    reference = answers([([0.0, 0.0], [5.0, margin, -5.0], [1, int(margin > 0), 0])])
    other = answers([([0.0, 0.0], [5.0, -margin, -5.0], [1, int(margin < 0), 0])])
    found = agreement(reference, other)
    assert (found.near_ties, found.mask_differences) == (near, 1 - near)


@pytest.mark.parametrize(("second", "near"), [(-1.000005, 2), (-1.00002, 0)])
def test_a_fallback_between_two_best_margins_is_a_near_tie(second: float, near: int) -> None:
    reference = answers([([0.0, 0.0], [-1.0, second, -9.0], [1, 0, 0])])
    other = answers([([0.0, 0.0], [second, -1.0, -9.0], [0, 1, 0])])
    found = agreement(reference, other)
    assert (found.near_ties, found.mask_differences) == (near, 2 - near)


def test_a_near_tie_excuses_no_other_position() -> None:
    reference = answers([([0.0, 0.0], [1e-6, 3.0, 2.0], [1, 1, 1])])
    other = answers([([0.0, 0.0], [-1e-6, 3.0, -2.0], [0, 1, 0])])
    found = agreement(reference, other)
    assert (found.near_ties, found.mask_differences) == (1, 1)


def test_rows_without_features_agree() -> None:
    empty = answers([([1.0, 0.0], [LOWEST, LOWEST], [0, 0])])
    assert agreement(empty, empty).mask_agreement == 1.0


@pytest.mark.parametrize("task", ["text", "image"])
def test_answers_are_those_of_each_row_without_its_padding(
    make_graph: Graph, make_feeds: Callable[[str, int], list[Feed]], task: str
) -> None:
    model, path = make_graph(task, "zero", "re")
    feeds = make_feeds(task, 7)
    reference = torch_answers(model, feeds)
    for batch in (1, 3, 16):
        found = graph_answers(path, feeds, batch=batch)
        for feed, margin, mask in zip(feeds, found.margins, found.masks, strict=True):
            width = feed["input_ids"].shape[1] if task == "text" else 64
            assert margin.shape == mask.shape == (width,)
        compared = agreement(reference, found)
        assert compared.mask_differences == compared.near_ties == 0
        assert compared.largest_logit_difference < 1e-4


@pytest.mark.parametrize(
    ("depends", "found"),
    [
        ({"batch": 16, "threads": 2, "width": 0}, (2, 1)),
        ({"batch": 1, "threads": 1, "width": 5}, (2, 1)),
        ({"batch": 7, "threads": 7, "width": 7}, (0, 0)),
    ],
)
def test_a_dependence_is_found_wherever_it_lies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, depends: dict[str, int], found: tuple[int, int]
) -> None:
    """The graph is one that answers by its rows' ids, and wrongly on row 4 when it is asked in one way."""
    feeds: list[Feed] = [{"input_ids": np.full((1, length), length)} for length in (5, 4)]
    by_length = {len(row[1]): row for row in REFERENCE}
    changed = {**by_length, 4: ([0.0, 1.0], [LOWEST, -1.0, 2.0, LOWEST], [0, 0, 1, 0])}

    def ask(path: Path, feeds: list[Feed], pad_id: int, batch: int = 1, threads: int = 1, width: int = 0) -> Answers:
        said = changed if {"batch": batch, "threads": threads, "width": width} == depends else by_length
        return answers([said[feed["input_ids"].shape[1]] for feed in feeds])

    monkeypatch.setattr(parity, "graph_answers", ask)
    result = invariance(tmp_path, feeds, 0)
    assert (result["rows"], result["positions"], result["near_ties"]) == (2, 9, 0)
    assert (result["mask_differences"], result["label_differences"]) == found
    assert result["compared"] == ["shuffled batches of 16 on 2 threads", "alone, padded to 5"]


def test_padding_to_a_width_is_hidden_from_the_graph(make_graph: Graph, make_feeds: Callable) -> None:
    _, path = make_graph("text", "drop", "re")
    feeds = make_feeds("text", 5)
    plain, padded = graph_answers(path, feeds), graph_answers(path, feeds, width=32)
    for feed, mask, same in zip(feeds, plain.masks, padded.masks, strict=True):
        assert len(same) == feed["input_ids"].shape[1]
        np.testing.assert_array_equal(mask, same)
    np.testing.assert_allclose(plain.logits, padded.logits, atol=1e-5)


@pytest.mark.slow
def test_a_million_tokens_have_the_same_answers_in_any_company(int8_bundle: Path) -> None:
    random = np.random.default_rng(0)
    words = len(json.loads((int8_bundle / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    rows = [np.array([[2, *random.integers(4, words, count), 3]]) for count in random.integers(22, 63, 24_000)]
    feeds: list[Feed] = [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]
    result = invariance(int8_bundle / "model.onnx", feeds, 0)
    assert result["positions"] - 2 * result["rows"] >= 1_000_000  # [CLS] and [SEP] apart
    assert result["mask_differences"] == result["label_differences"] == 0
    assert result["near_ties"] <= 20
    assert result["compared"] == ["shuffled batches of 16 on 2 threads", "alone, padded to 64"]


def test_int8_images_have_the_same_answers_in_any_company(
    make_run: Callable[..., Path], make_feeds: Callable[[str, int], list[Feed]], tmp_path: Path
) -> None:
    export_bundle(make_run("image", "drop"), tmp_path / "bundle", precision="int8")
    result = invariance(tmp_path / "bundle" / "model.onnx", make_feeds("image", 320), 0)
    assert result["positions"] == 320 * 64
    assert result["mask_differences"] == result["label_differences"] == 0
    assert result["compared"] == ["shuffled batches of 16 on 2 threads"]

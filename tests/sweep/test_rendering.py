"""What the tables of a sweep say, in Markdown and on terminals of any width."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from rekd_edge.sweep.rendering import as_markdown, as_rich, sections


def figure(mean: float, std: float | None = 0.01) -> dict[str, float | None]:
    return {"mean": mean, "std": std}


def interval(mean: float, low: float | None, high: float | None, n: int = 3) -> dict[str, Any]:
    return {"mean": mean, "std": 0.01, "low": low, "high": high, "n": n}


def line(name: str, **more: Any) -> dict[str, Any]:
    plain = {"row": "student", "line": name, "method": name, "role": "student", "values": {}, "n": 3, "of": 3}
    figures = {"accuracy": figure(0.8), "dev_accuracy": figure(0.82), "rationale_ratio": figure(0.101, 0.002)}
    return {**plain, **figures, **more}


DOCUMENT: dict[str, Any] = {
    "title": "made up",
    "source": "nowhere",
    "failed": [{"run": "student-cls-2026", "error": "It broke."}],
    "table": [
        line("cls", n=2),
        line(
            "re",
            random_mask_accuracy=figure(0.79),
            differences={"control": interval(0.007, -0.004, 0.018), "cls": interval(-0.1, -0.12, -0.08)},
        ),
        line(
            "rekd",
            differences={"control": interval(0.05, None, None, n=1), "re": interval(0.02, 0.01, 0.03)},
            won_back={"cls": interval(0.75, 0.5, 1.25), "cls-accuracy": interval(0.5, None, None)},
            tuned={"learning_rate": {"tried": [1e-4, 3e-4], "taken": 3e-4}},
        ),
    ],
    "published": [{"row": "student", "line": "rekd", "values": {}, "accuracy": 0.875, "std": 0.01, "gain": 0.075}],
}


def cells_of(text: str, title: str) -> list[dict[str, str]]:
    """The rows of the Markdown table under a title."""
    part = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in part.splitlines() if row.startswith("|")]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_markdown_has_what_the_lines_have() -> None:
    text = as_markdown(DOCUMENT)
    accuracy = {row["method"]: row for row in cells_of(text, "Accuracy")}
    assert accuracy["RE"] == {
        **{"row": "student", "method": "RE", "n": "3", "dev": "0.820 (0.010)", "test": "0.800 (0.010)"},
        **{"ratio": "10.1% (0.2%)", "control": "0.790 (0.010)"},
    }
    assert accuracy["CLS"]["n"] == "2/3"
    assert "- `student-cls-2026`: It broke." in text


def test_a_difference_says_what_it_shows() -> None:
    rows = {row["method"]: row for row in cells_of(as_markdown(DOCUMENT), "Differences")}
    assert rows["RE"]["− control"] == "+0.007 [-0.004, +0.018] not shown"
    assert rows["RE"]["− CLS"] == "-0.100 [-0.120, -0.080]"
    assert rows["REKD"]["− RE"] == "+0.020 [+0.010, +0.030]"
    assert rows["REKD"]["− control"] == "+0.050 (one seed)"
    assert rows["REKD"]["won back of CLS"] == "75% [50%, 125%]"
    assert rows["REKD"]["won back of CLS-ACCURACY"] == "50% [no bounds] not shown"
    assert rows["RE"]["− RE"] == rows["RE"]["won back of CLS"] == ""


def test_what_was_tried_on_dev_is_listed() -> None:
    (row,) = cells_of(as_markdown(DOCUMENT), "Tuned on dev")
    assert row == {
        **{"row": "student", "method": "REKD", "setting": "learning_rate"},
        **{"tried": "0.0001, 0.0003", "taken": "0.0003"},
    }


def test_published_figures_have_a_table_of_their_own() -> None:
    text = as_markdown(DOCUMENT)
    (row,) = cells_of(text, "Published")
    assert row == {"row": "student", "method": "REKD", "accuracy": "0.875 (0.010)", "− RE": "+0.075"}
    assert "From nowhere" in text
    assert "0.875" not in text.partition("## Published")[0]


def test_tables_that_nothing_fills_are_left_out() -> None:
    plain = {**DOCUMENT, "table": [line("cls")], "published": []}
    assert [section.title for section in sections(plain)] == ["Accuracy"]
    assert [section.title for section in sections(DOCUMENT)] == [
        "Accuracy",
        "Differences",
        "Tuned on dev",
        "Published",
    ]


@pytest.mark.parametrize(("width", "has_control"), [(50, False), (300, True)])
def test_narrow_terminals_lose_columns_and_no_figures(width: int, has_control: bool) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(as_rich(sections(DOCUMENT)[0], width))
    text = console.export_text()
    assert "…" not in text
    assert "0.800 (0.010)" in text
    assert ("control" in text) == has_control

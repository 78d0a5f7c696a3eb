"""The log of a few decisions."""

from __future__ import annotations

from pathlib import Path

import pytest

from rekd_edge import Rationalizer
from rekd_edge.records import DecisionLog

TEXT = Path(__file__).parents[1] / "vectors" / "bundles" / "text-int8"
TEXTS = ["a superb film", "what a dull end, 👩‍👧", "", "x"]


@pytest.fixture(scope="session")
def rationalizer() -> Rationalizer:
    return Rationalizer.load(TEXT)


@pytest.fixture
def log(rationalizer: Rationalizer, tmp_path: Path) -> Path:
    path = tmp_path / "decisions.jsonl"
    with DecisionLog(path, rationalizer, TEXT) as decisions:
        assert [each.label for each in decisions.predict(TEXTS)] == [rationalizer(text).label for text in TEXTS]
    return path

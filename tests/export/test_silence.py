"""Export prints its own lines alone: no log lines of ONNX Runtime, which are in colour even in a file, nor of torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rekd_edge.export import export_bundle


@pytest.fixture
def trace_once() -> None:
    """Models are traced here, and not read from what another test traced."""


@pytest.mark.slow
def test_libraries_are_silent(make_run: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_bundle(make_run("image"), tmp_path / "bundle", precision="int8", calibration_data="builtin:digits")
    written = capfd.readouterr()
    assert "export: 4/4" in written.err
    for text in written:
        assert "onnxruntime" not in text
        assert "torch" not in text
        assert "Warning" not in text
        assert "\x1b" not in text

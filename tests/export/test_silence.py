"""Export says what it does in its own words: no log lines of ONNX Runtime, which are in colour even in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rekd_edge.export import export_bundle


def test_onnx_runtime_is_silent(
    make_run: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export_bundle(make_run("image"), tmp_path / "bundle", precision="int8", calibration_data="builtin:digits")
    written = capfd.readouterr()
    assert "export: 4/4" in written.err
    for text in written:
        assert "onnxruntime" not in text
        assert "\x1b" not in text

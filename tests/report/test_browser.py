"""The report in headless Chromium: nothing is requested, filters work, dark, and on a phone's width."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rekd_edge.report import write_report

ROOT = Path(__file__).parents[2]
BUNDLES = ROOT / "tests" / "vectors" / "bundles"
CHROMIUM = [os.environ.get("CHROMIUM", ""), *(f"/usr/bin/{name}" for name in ("chromium", "chromium-browser"))]
KINDS = ("right", "wrong", "unsure", "near tie")

READY = shutil.which("node") and (ROOT / "js" / "node_modules").is_dir() and any(map(os.path.exists, CHROMIUM))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not READY,
        reason="needs Node with its packages (cd js && npm ci --ignore-scripts) and Chromium (CHROMIUM=/path/to/it)",
    ),
]  # fmt: skip


def looked_at(page: Path) -> dict[str, Any]:
    """What a browser says of a page; with REPORT_PICTURES=FOLDER its screenshots are kept there."""
    given = [
        "node",
        str(ROOT / "js" / "test" / "report.js"),
        str(page),
        *filter(None, [os.environ.get("REPORT_PICTURES")]),
    ]
    done = subprocess.run(given, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("bundle", "spec"), [("text-int8", "builtin:planted"), ("image-int8", "builtin:digits")])
def test_the_report_in_a_browser(tmp_path: Path, bundle: str, spec: str) -> None:
    write_report([BUNDLES / bundle], spec, tmp_path / "report.html", limit=40, shown=30)
    seen = looked_at(tmp_path / "report.html")

    assert seen["requests"] == []
    assert seen["errors"] == []

    assert seen["shown"]["all"] == 30
    assert seen["shown"]["none"] == 0
    assert all(seen["shown"][kind] == seen["shown"][f"of {kind}"] for kind in KINDS)
    assert sum(seen["shown"][kind] for kind in ("right", "wrong")) == 30

    assert seen["widths"][0] <= seen["widths"][1] == 390  # nothing sticks out to the side
    assert seen["grounds"] == ["rgb(255, 255, 255)", "rgb(20, 22, 26)"]

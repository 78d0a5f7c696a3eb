"""A Hub on this machine, and commands in processes that know no other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hub_server import Hub

VECTORS = Path(__file__).parents[1] / "vectors" / "bundles"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


@pytest.fixture
def command(hub: Hub, tmp_path: Path) -> Command:
    """Run `rekd-edge ARGUMENTS`, or Python code, with this Hub and an empty cache."""

    def run(*arguments: str | Path, offline: bool = False, code: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_TOKEN": "hf_of_the_test",
            "HF_HUB_OFFLINE": str(int(offline)),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        environment.pop("HF_HUB_CACHE", None)
        first = ["-m", "rekd_edge", *map(str, arguments)] if code is None else ["-c", code]
        return subprocess.run(
            [sys.executable, *first], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60
        )

    return run


@pytest.fixture
def bundle() -> Path:
    """A small bundle for texts."""
    return VECTORS / "text-int8"


@pytest.fixture
def files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}

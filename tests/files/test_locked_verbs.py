"""Two calls never write to one output: the second is told who is at work there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rekd_edge.errors import InputError
from rekd_edge.files import locked


@contextmanager
def held_by_another(output: Path) -> Iterator[None]:
    """Hold the lock of an output from another thread, as another call would."""
    holds, over = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(output):
            holds.set()
            over.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holds.wait(60)
    try:
        yield
    finally:
        over.set()
        holder.join()


def refused(output: Path, call: Callable[[], object]) -> None:
    before = sorted(output.parent.rglob("*"))
    with held_by_another(output):
        with pytest.raises(InputError, match=rf"Process {os.getpid()} on .* writes to .*{output.name}; wait for it"):
            call()
        assert not output.exists()
    assert sorted(output.parent.rglob("*")) == before


def test_train(tmp_path: Path) -> None:
    from rekd_edge.training.configuration import load_config
    from rekd_edge.training.run import train

    refused(tmp_path / "run", lambda: train(load_config("planted", {"method": "cls"}), tmp_path / "run"))


def test_export(make_run: Callable[..., Path], tmp_path: Path) -> None:
    from rekd_edge.export import export_bundle

    refused(tmp_path / "bundle", lambda: export_bundle(make_run("text"), tmp_path / "bundle"))


def test_sweep(tmp_path: Path) -> None:
    from rekd_edge.engines import EngineSettings
    from rekd_edge.sweep.grid import load_grid
    from rekd_edge.sweep.run import run_sweep

    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "title: a grid\nsource: nobody\nrecipe: planted\nsettings: {data.train_limit: 96, data.eval_limit: 48}\n"
        "methods: [cls]\nrows:\n  student: {layers: 1}\n"
    )
    chosen = load_grid(str(grid), {})
    refused(tmp_path / "sweep", lambda: run_sweep(chosen, tmp_path / "sweep", EngineSettings()))


def test_bulk_prediction(digits_bundle: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rekd_edge.bulk import predict_files

    pq.write_table(pa.table({"image": pa.array([b""])}), tmp_path / "in.parquet")
    refused(tmp_path / "out", lambda: predict_files(digits_bundle, tmp_path / "in.parquet", tmp_path / "out"))


def test_demo(tmp_path: Path) -> None:
    from rekd_edge.demo import run_demo

    refused(tmp_path / "demo", lambda: run_demo(tmp_path / "demo"))

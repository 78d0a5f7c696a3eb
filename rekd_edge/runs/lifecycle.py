"""How a run begins, resumes and finishes in its folder."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.files import (
    MARKER,
    claim_folder,
    is_ours,
    read_json,
    remove_ours,
    sync_folder,
    sync_tree,
    write_json,
)
from rekd_edge.runs.layout import METRICS_FILE, RECORD_FILE, RunFolder

__all__ = ["begin", "finish", "reopen", "restate", "withdraw"]

STAGING, PURPOSE = ".finish.", "files of a finished run"
"""Prefix and purpose of the folder in which a run's files are written before they are moved to their places."""
CHECKPOINTS = "checkpoints of a run"
"""Purpose of the folder that an unfinished run resumes from."""


def reopen(run: RunFolder, recipe: dict[str, Any], defaults: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """Check the folder that a run is to be trained in.

    Args:
        run: a new folder, or that of an earlier call, locked.
        recipe: the settings asked for now that have an effect on the run, as JSON has them.
        defaults: the value of every setting, for those that did not exist when the run was started.
        resume: whether to go on with what the folder holds.

    Returns:
        The metrics of a run that is finished already, else None.

    Raises:
        InputError: the folder is taken, holds no run, or holds one that was started with other settings.
    """
    if not run.path.is_dir() or not any(run.path.iterdir()):
        return None
    if not resume:
        raise InputError(f"{run.path} is not empty; give --output a new folder, or --resume to go on with this run.")

    if not run.is_finished and not run.recipe_file.is_file():
        if {path.name for path in run.path.iterdir()} == {run.checkpoints.name}:
            return None  # killed before anything was written
        raise InputError(f"{run.path} holds no run to resume; give --output a new folder.")

    _check_settings(run, recipe, defaults)
    _remove_staging(run)

    if not run.is_finished:
        return None

    remove_ours(run.checkpoints, CHECKPOINTS)
    return run.read_metrics()


def _check_settings(run: RunFolder, recipe: dict[str, Any], defaults: dict[str, Any]) -> None:
    saved = run.read_recipe()
    saved = {**defaults, **saved, "data": {**defaults["data"], **saved["data"]}}

    changed = sorted(key for key in recipe if recipe[key] != saved.get(key))
    if changed:
        raise InputError(
            f"{run.path} was started with other settings ({', '.join(changed)}); resume with the same, or give "
            "--output a new folder."
        )


def begin(run: RunFolder, recipe: dict[str, Any], sources: dict[str, Any]) -> list[Path]:
    """Note in a run's folder what it is asked for and made from, or hold it against what was noted before.

    Returns:
        Folders that were made for it, the innermost first.

    Raises:
        InputError: the run was started from other data, teachers or control, or by a release whose checkpoints cannot
            be verified; or the folder for checkpoints is a link.
    """
    made = [folder for folder in (run.path, *run.path.parents) if not folder.exists()]
    if run.recipe_file.is_file() and not run.checkpoints.is_symlink() and not is_ours(run.checkpoints, CHECKPOINTS):
        raise InputError(
            f"{run.path} was started by an earlier release, whose checkpoints cannot be verified; remove it and train "
            "again without --resume."
        )

    claim_folder(run.checkpoints, CHECKPOINTS)
    if not run.recipe_file.is_file():
        write_json(run.recipe_file, recipe)

    if run.sources_file.is_file():
        saved = read_json(run.sources_file)
        changed = [name for name, source in sources.items() if saved.get(name) != source]
        if changed:
            raise InputError(
                f"The {' and the '.join(changed)} of {run.path} changed since it was started; resume with what it "
                "had, or give --output a new folder."
            )

    write_json(run.sources_file, sources)
    return made


def withdraw(run: RunFolder, made: Sequence[Path]) -> None:
    """Undo `begin` after an error, unless something was trained that a resumed run can go on from.

    Args:
        run: the folder, begun.
        made: what `begin` returned.
    """
    controls = any(path.is_dir() for path in run.path.glob("control*"))
    trained = controls or any(run.checkpoints.glob("**/checkpoint-*"))
    if trained or run.is_finished:
        return

    remove_ours(run.checkpoints, CHECKPOINTS)
    with suppress(OSError):  # something else is there
        for folder in made:
            folder.rmdir()


def finish(run: RunFolder, save_model: Callable[[Path], None], record: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Write every file beside its place, then move all in, `metrics.json` last; remove the checkpoints.

    Args:
        run: the folder, begun.
        save_model: writes configuration, weights and preprocessing into a folder.
        record: of `training.json`; the settings that were asked for are added as `asked`.
        metrics: of `metrics.json`.
    """
    asked = read_json(run.recipe_file)
    staging = claim_folder(run.path / f"{STAGING}{secrets.token_hex(8)}", PURPOSE)

    try:
        save_model(staging)
        write_json(staging / RECORD_FILE, {**record, "asked": asked})
        write_json(staging / METRICS_FILE, metrics)
        sync_tree(staging)

        names = {path.name for path in staging.iterdir()} - {MARKER, METRICS_FILE}
        for name in [*sorted(names), METRICS_FILE]:
            os.replace(staging / name, run.path / name)

        sync_folder(run.path)
    finally:
        remove_ours(staging, PURPOSE)

    remove_ours(run.checkpoints, CHECKPOINTS)


def restate(run: RunFolder, settings: dict[str, Any], spec: str) -> None:
    """Replace settings of a run that change nothing of what is trained, so that it resumes under their new values.

    A folder in which a run was cut off before it noted its settings, or that an earlier release began, is removed.

    Args:
        run: the folder, finished or not.
        settings: new values by name.
        spec: where the data lies now.
    """
    if not run.path.is_dir():
        return

    _remove_staging(run)
    try:
        then = run.read_recipe()
    except InputError:
        then = None

    if then is None or not (run.is_finished or is_ours(run.checkpoints, CHECKPOINTS)):
        shutil.rmtree(run.path)
        return

    now = {**then, **settings, "data": {**then["data"], "spec": spec}}
    if now == then:
        return

    if run.is_finished:
        write_json(run.record_file, {**run.read_record(), "asked": now})
    else:
        write_json(run.recipe_file, now)


def _remove_staging(run: RunFolder) -> None:
    for left in run.path.glob(f"{STAGING}*"):
        remove_ours(left, PURPOSE)

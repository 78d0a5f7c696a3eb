"""Where output may go, and paths that stay within their folder."""

from __future__ import annotations

from pathlib import Path

from rekd_edge.errors import InputError

__all__ = ["check_output_folder", "check_place", "inside", "real_folder"]


def check_place(folder: Path) -> None:
    """Check that a folder can be there.

    Raises:
        InputError: it, or what should hold it, is a file.
    """
    file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
    if file is not None:
        raise InputError(f"{file} is a file; give --output a new folder.")


def check_output_folder(output: Path) -> None:
    """Refuse an output path that is a file, a link or a non-empty folder, before any work is done.

    Raises:
        InputError: the path is taken.
    """
    check_place(output)
    if output.is_symlink():
        raise InputError(f"{output} is a link; give --output a new folder.")
    if output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output} is not empty; give --output a new folder or remove this one.")


def inside(folder: Path, name: str) -> Path:
    """The path of a file that a document names relative to its own folder.

    Raises:
        InputError: the name leads out of the folder, or a part of the path below the folder is a link.
    """
    relative = Path(name)
    if relative.is_absolute() or relative.drive or ".." in relative.parts or relative == Path():
        raise InputError(f"{name!r} does not lie in {folder}; it names a file outside it.")

    path = folder
    for part in relative.parts:
        path = path / part
        if path.is_symlink():
            raise InputError(f"{path} is a link; put the file itself there.")

    return path


def real_folder(path: Path) -> Path:
    """Make a folder where there is none yet, and refuse a link to one.

    Raises:
        InputError: the path is a link or a file.
    """
    if path.is_symlink():
        raise InputError(f"{path} is a link, which is not followed; remove it.")

    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{path} is a file where a folder must be; remove it.") from error

    return path

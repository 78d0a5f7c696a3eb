"""Where a data set lies, a file, a folder or the Hub, to one table a split."""

from __future__ import annotations

import errno
import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekd_edge.data.delimited import encoding_of, read_csv
from rekd_edge.data.examples import SPLIT_NAMES
from rekd_edge.errors import FailureError, InputError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["READERS", "file_table", "folder_tables", "hub_tables"]

READERS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}
"""Suffixes of the files that are read, and the format of each."""


def hub_tables(name: str) -> dict[str, Dataset]:
    """The train, validation and test splits of a data set on the Hugging Face Hub, or of its local cache.

    Raises:
        InputError: it can't be reached, doesn't exist or isn't loadable as it stands.
    """
    from datasets import load_dataset

    try:
        splits = load_dataset(name, trust_remote_code=False)
    except FileNotFoundError as error:
        raise InputError(
            f"There is no data set {name!r} on the Hugging Face Hub; correct the name or give a local folder."
        ) from error
    except Exception as error:  # connections, gated repositories, scripts, a missing configuration name
        _refuse_full_disk(error)
        if isinstance(error, ConnectionError):
            raise InputError(
                f"The data set {name!r} could not be reached on the Hugging Face Hub; "
                "check the connection or give a local folder that holds its files."
            ) from error

        raise InputError(
            f"The data set {name!r} cannot be loaded from the Hugging Face Hub ({_first_line(error)}); "
            "give a local folder that holds its files."
        ) from error

    found = {SPLIT_NAMES[split]: splits[split] for split in splits if split in SPLIT_NAMES}
    if not found:
        raise InputError(f"The data set {name!r} has no train, validation or test split, only: {', '.join(splits)}.")

    return found


def folder_tables(folder: Path) -> dict[str, Dataset]:
    """The splits of a folder with `{train,validation,test}.{parquet,csv,jsonl}`, or of an image folder.

    An image folder holds `SPLIT/LABEL/*.png`, or `LABEL/*.png` alone, whose one table goes by the folder's name.

    Raises:
        InputError: the folder holds neither, a split twice, or a file that can't be read.
    """
    files = [path for path in sorted(folder.iterdir()) if path.suffix in READERS and path.stem in SPLIT_NAMES]
    if files:
        _refuse_doubles(files)
        return {SPLIT_NAMES[path.stem]: file_table(path) for path in files}

    subfolders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    splits = [path for path in subfolders if path.name in SPLIT_NAMES]
    _refuse_doubles(splits)

    if splits:
        return {SPLIT_NAMES[path.name]: _image_folder(path) for path in splits}
    if subfolders:
        return {f"{folder.name}/": _image_folder(folder)}

    raise InputError(
        f"{folder} holds no data; give a folder with train, validation or test as .parquet, .csv or .jsonl, "
        "or with images sorted into one folder a label."
    )


def file_table(path: Path) -> Dataset:
    """The rows of a `.csv`, `.jsonl` or `.parquet` file.

    Raises:
        InputError: it has another suffix, or can't be read.
    """
    form = READERS.get(path.suffix.lower())
    if form is None:
        raise InputError(f"{path} is none of {', '.join(READERS)}; save it as one of these.")

    if form == "csv":
        from datasets import Dataset

        table = Dataset(read_csv(path))
        if not len(table):
            raise InputError(f"{path} is empty; fill or remove it.")

        return table

    options: dict[str, Any] = {}
    if form == "json":
        options["encoding"] = encoding_of(path)
        if options["encoding"] is None:
            raise InputError(f"{path} is not UTF-8, as JSON is; save it in UTF-8.")

    return _load(path, form, data_files=glob.escape(str(path)), **options)


def _image_folder(folder: Path) -> Dataset:
    # Every file is named, because `datasets` would sort files into splits by words such as "test" in their names.
    files = sorted(str(path) for path in folder.glob("*/*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise InputError(f"{folder} holds no images; sort them into one folder a label: {folder.name}/LABEL/*.png.")
    return _load(folder, "imagefolder", data_files=files, drop_labels=False, drop_metadata=True)


def _load(path: Path, builder: str, **options: Any) -> Dataset:
    from datasets import load_dataset

    try:
        return load_dataset(builder, split="train", trust_remote_code=False, **options)
    except Exception as error:  # the readers of the formats raise whatever they like
        _refuse_full_disk(error)
        if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
            raise InputError(f"{path} is empty; fill or remove it.") from error
        raise InputError(
            f"{path} cannot be read as {builder} ({_first_line(error)}); correct or replace it."
        ) from error


def _refuse_doubles(paths: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        first = seen.setdefault(SPLIT_NAMES[path.stem], path)
        if first is not path:
            raise InputError(f"{first} and {path.name} are both the {SPLIT_NAMES[path.stem]} split; keep one of them.")


def _refuse_full_disk(error: BaseException) -> None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            raise FailureError("No space is left for the cache of datasets; free some or set HF_HOME.") from error
        cause = cause.__cause__ or cause.__context__


def _first_line(error: BaseException) -> str:
    """The first line of what went wrong first."""
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")

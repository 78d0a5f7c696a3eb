"""Replay recorded decisions: the same input through the same bundle must give the same record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rekd_edge.errors import InputError
from rekd_edge.lines import text_lines
from rekd_edge.records.log import record_of
from rekd_edge.records.record import hash_of_input, processor_kind, records_of
from rekd_edge.versions import versions

if TYPE_CHECKING:
    from rekd_edge.runtime import Rationalizer

__all__ = ["Replay", "texts_of", "verify_records"]

DECISION = ("label", "label_id", "selected")
"""What must be the same everywhere, but for near ties."""
LOGIT_TOLERANCE = 1e-4
"""Between runtimes that compute in float, as in the parity of exports."""


@dataclass
class Replay:
    """What a file of records was found to be."""

    records: int = 0
    same_machine: int = 0
    """Records of this runtime and kind of processor, which must be equal bit by bit."""
    exact: int = 0
    within_band: int = 0
    """Replayed elsewhere: the same decision, or another one where a margin lies in the band of near ties."""
    not_replayed: int = 0
    """Inputs that were not at hand."""
    differing: list[int] = field(default_factory=list)
    """Lines whose decision could not be repeated."""

    @property
    def holds(self) -> bool:
        """Whether every decision whose input was at hand was repeated."""
        return not self.differing


def verify_records(path: Path, rationalizer: Rationalizer, bundle: Path, inputs: Iterable[Any] = ()) -> Replay:
    """Check the records of a file against themselves, a bundle, and, where their inputs are at hand, a replay.

    Args:
        path: what `predict --record` wrote.
        rationalizer: the open bundle.
        bundle: its folder.
        inputs: texts, or image files as paths, in any order: they are found by their SHA-256. Texts that stand in the
            records themselves need not be given.

    Raises:
        InputError: a record was changed, removed or moved, or is of another bundle; the sentence names the line. Or
            there is no record, or an image cannot be read.
    """
    here = {**versions("onnxruntime"), "processor": processor_kind()}
    known = {_hash_of(source): source for source in inputs}
    found = Replay()

    for number, record in enumerate(records_of(path, bundle), start=1):
        found.records += 1
        same = all(record["runtime"].get(name) == value for name, value in here.items())
        found.same_machine += same

        source = known.get(record["input_sha256"])
        if rationalizer.manifest.text:  # an image's record holds no input, and a path in it is not followed
            source = record.get("input", source)
        if source is None:
            found.not_replayed += 1
        elif hash_of_input(source) != record["input_sha256"]:
            raise InputError(f"Line {number} of {path} holds another text than was hashed; it was changed.")
        else:
            _compare(found, number, record, _again(rationalizer, source), same, rationalizer.near_tie_band)

    if not found.records:
        raise InputError(f"{path} holds no records; give a file that predict --record wrote.")

    return found


def _hash_of(source: Any) -> str:
    try:
        return hash_of_input(source)
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror}); give the image that was decided on.") from error


def _again(rationalizer: Rationalizer, source: Any) -> dict[str, Any]:
    ((prediction, logits, margins),) = rationalizer.answers([source])
    return record_of(source, prediction, logits, margins, rationalizer.near_tie_band)


def _compare(
    found: Replay, number: int, record: dict[str, Any], again: dict[str, Any], same: bool, band: float
) -> None:
    """Count a replayed record as exact, within the band, or differing."""
    if all(record.get(name) == value for name, value in again.items()):
        found.exact += 1
        return

    decision = all(record[name] == again[name] for name in DECISION)
    as_many = len(record["logits"]) == len(again["logits"])
    allowed = max(band, LOGIT_TOLERANCE)
    close = decision and as_many and np.allclose(record["logits"], again["logits"], atol=allowed, rtol=0)
    tied = record["near_ties"] or again["near_ties"]
    if not same and (close or tied):
        found.within_band += 1
    else:
        found.differing.append(number)


def texts_of(path: Path, column: str | None = None) -> Iterator[str]:
    """The texts of a file: one a line, or a column of a `.csv`, `.jsonl` or `.parquet` file.

    Raises:
        InputError: the file cannot be read, or has no such column.
    """
    from rekd_edge.data.tables import READERS, file_table

    if path.suffix not in READERS:
        try:
            with path.open("rb") as file:
                yield from text_lines(file, str(path))
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); give one text a line.") from error
        return

    table = file_table(path)
    name = column or next((each for each in ("text", "review", "sentence") if each in table.column_names), None)
    if name is None or name not in table.column_names:
        raise InputError(
            f"{path} has no column {name or 'text'}, only: {', '.join(table.column_names)}; name it with --text-column."
        )

    for batch in table.iter(1000):
        yield from map(str, batch[name])

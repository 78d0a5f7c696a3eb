"""`eraser:FOLDER`: a data set in the layout of ERASER (https://www.eraserbenchmark.com), with what people marked.

`docs/` holds a text a document, `{train,val,test}.jsonl` an annotation a line: `annotation_id`, `classification`, and
`evidences`, spans in whitespace tokens of the document.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from rekd_edge.data.examples import SPLIT_NAMES, DataSource, Examples
from rekd_edge.errors import InputError
from rekd_edge.files import inside

__all__ = ["eraser", "words_of"]

FILES = {"train.jsonl": "train", "val.jsonl": "validation", "test.jsonl": "test"}
DOCUMENTS = "docs"


class Evidence(BaseModel):
    """A span of one document, in whitespace tokens, the end excluded."""

    docid: Annotated[str, Field(min_length=1, max_length=1024)]
    start_token: Annotated[int, Field(ge=0)]
    end_token: Annotated[int, Field(ge=0)]


class Annotation(BaseModel):
    """A line of an annotation file; evidences come in groups."""

    annotation_id: Annotated[str, Field(min_length=1, max_length=1024)]
    classification: Annotated[str, Field(min_length=1, max_length=1024)]
    evidences: list[list[Evidence]]


def eraser(folder: Path) -> DataSource:
    """Read a data set whose annotations are of one document each, as those of ERASER Movies are.

    The document's text is the input. `rationale_spans` of an example are its evidence spans in characters, from the
    first to the last word of each; the evaluation goes back to whitespace words (`docs/evaluation.md`).

    Raises:
        InputError: files are missing or are not ERASER's; the sentence names file and line.
    """
    files = {split: folder / name for name, split in FILES.items() if (folder / name).is_file()}
    if not files or not (folder / DOCUMENTS).is_dir():
        raise InputError(
            f"{folder} is no ERASER data set; give a folder with {', '.join(FILES)} and the documents in {DOCUMENTS}/."
        )

    splits = {split: list(_annotations(file)) for split, file in files.items()}
    labels = sorted({each.classification for rows in splits.values() for _, each in rows})
    return DataSource(
        "text", labels, {SPLIT_NAMES[split]: _examples(folder, rows, labels) for split, rows in splits.items()}
    )


def words_of(text: str) -> list[tuple[int, int]]:
    """(start, end) in characters of every whitespace token, the unit in which ERASER counts."""
    spans, position = [], 0
    for word in text.split():
        start = text.index(word, position)
        position = start + len(word)
        spans.append((start, position))
    return spans


def _annotations(file: Path) -> Iterator[tuple[str, Annotation]]:
    """Annotations with where each stands."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as UTF-8; restore it.") from error

    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"Line {number} of {file}"
            try:
                yield place, Annotation.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                name = ".".join(map(str, first["loc"])) or "the line"
                raise InputError(f"{place} is no ERASER annotation: {name}: {first['msg']}; mend it.") from error

    if not any(line.strip() for line in lines):
        raise InputError(f"{file} holds no annotation; restore it.")


def _examples(folder: Path, rows: list[tuple[str, Annotation]], labels: list[str]) -> Examples:
    texts, spans = [], []
    for place, row in rows:
        evidence = [each for group in row.evidences for each in group]
        documents = {each.docid for each in evidence} or {row.annotation_id}
        if len(documents) > 1:
            raise InputError(f"{place} has evidence in {len(documents)} documents; only sets of one document are read.")

        text = _document(folder, documents.pop(), place)
        words = words_of(text)
        outside = next((each for each in evidence if not each.start_token < each.end_token <= len(words)), None)
        if outside is not None:
            raise InputError(
                f"{place} marks tokens {outside.start_token} to {outside.end_token} of a document of {len(words)}; "
                "mend the span or restore the document."
            )

        texts.append(text)
        spans.append([(words[each.start_token][0], words[each.end_token - 1][1]) for each in evidence])

    ids = {label: number for number, label in enumerate(labels)}
    return Examples(texts, np.array([ids[row.classification] for _, row in rows], dtype=np.int64), spans)


def _document(folder: Path, name: str, place: str) -> str:
    file = inside(folder / DOCUMENTS, name)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{place} names {file}, which is missing or is not UTF-8; restore it.") from error

"""From a batch of rows to the same rows with their predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from rekd_edge.errors import InputError, RekdEdgeError

if TYPE_CHECKING:
    from rekd_edge.runtime.bundle import Manifest
    from rekd_edge.runtime.rationalizer import Prediction, Rationalizer

__all__ = ["ERROR", "failed_batch", "output_fields", "predict_batch"]

ERROR = "error"
SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("text", pa.string())]))
BITS = pa.list_(pa.int8())


def output_fields(schema: pa.Schema, column: str, manifest: Manifest) -> pa.Schema:
    """The columns of a result: the input's (renamed if a name is taken), the prediction's, and `error`.

    Image bytes are left out; a struct of bytes and path leaves its path.

    Raises:
        InputError: the new name of a column is taken as well.
    """
    predicted = _prediction_fields(manifest)
    kept = [
        pa.field(f"input_{name}" if name in predicted or name == ERROR else name, kind)
        for name, kind in _kept(schema, column).items()
    ]
    names = [field.name for field in kept]

    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"The input has a column {twice!r}, and another would be renamed to that; rename it.")

    return pa.schema([*kept, *(pa.field(*field) for field in predicted.items()), pa.field(ERROR, pa.string())])


def predict_batch(
    batch: pa.RecordBatch, column: str, rationalizer: Rationalizer, schema: pa.Schema, folder: Path
) -> pa.RecordBatch:
    """Predict a batch; a row that cannot be predicted has nulls, and its error says why.

    Args:
        batch: rows of the input.
        column: the column of texts or images.
        rationalizer: the open bundle.
        schema: the result's, from `output_fields`.
        folder: the base of relative image paths.
    """
    kind = "text" if rationalizer.manifest.text else "image"
    inputs = [_image(value, folder) if kind == "image" else value for value in _values(batch.column(column))]
    given = [value for value in inputs if value is not None and not isinstance(value, _Failed)]
    answers = iter(_predict(rationalizer, given))
    missing = _Failed(f"The {kind} is missing (null).")
    results = [missing if value is None else value if isinstance(value, _Failed) else next(answers) for value in inputs]

    return _with_results(batch, column, schema, results)


def failed_batch(batch: pa.RecordBatch, column: str, schema: pa.Schema, reason: str) -> pa.RecordBatch:
    """Rows without predictions, all for the same reason."""
    return _with_results(batch, column, schema, [_Failed(reason)] * len(batch))


@dataclass(frozen=True)
class _Failed:
    """A row without a prediction."""

    reason: str


def _with_results(
    batch: pa.RecordBatch, column: str, schema: pa.Schema, results: list[Prediction | _Failed]
) -> pa.RecordBatch:
    columns = [_kept_values(batch, column, name) for name in _kept(batch.schema, column)]
    for field in list(schema)[len(columns) : -1]:
        values = [None if isinstance(row, _Failed) else getattr(row, field.name) for row in results]
        columns.append(pa.array(values, field.type))
    columns.append(pa.array([row.reason if isinstance(row, _Failed) else None for row in results], pa.string()))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _prediction_fields(manifest: Manifest) -> dict[str, pa.DataType]:
    """The types of the fields of a prediction's `to_dict`."""
    fields = {
        "label": pa.string(),
        "label_id": pa.int32(),
        "scores": pa.struct([(label, pa.float64()) for label in manifest.labels]),
    }
    if manifest.image:
        return fields | {"mask": pa.list_(BITS), "patch_size": pa.int32(), "rationale_ratio": pa.float64()}

    fields |= {"rationale": SPANS, "mask": BITS, "tokens": pa.list_(pa.string())}
    fields |= {"rationale_ratio": pa.float64(), "truncated": pa.bool_()}

    if manifest.class_thresholds:
        rationale = pa.struct([("rationale", SPANS), ("scores", pa.list_(pa.float64()))])
        fields["class_rationales"] = pa.struct([(label, rationale) for label in manifest.labels])

    return fields


def _kept(schema: pa.Schema, column: str) -> dict[str, pa.DataType]:
    """The input's columns that the result keeps, under the input's names."""
    kept = {field.name: field.type for field in schema}
    kind = kept[column]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        del kept[column]
    elif pa.types.is_struct(kind):
        if kind.get_field_index("path") < 0:
            del kept[column]
        else:
            kept[column] = kind.field("path").type

    return kept


def _kept_values(batch: pa.RecordBatch, column: str, name: str) -> pa.Array:
    values = batch.column(name)
    if name == column and pa.types.is_struct(values.type):
        return pc.struct_field(values, "path")
    return values


def _values(array: pa.Array) -> list[Any]:
    """Python values; a text that is not UTF-8 becomes an error."""
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in array]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return _Failed("The text is not valid UTF-8.")


def _image(value: Any, folder: Path) -> Any:
    """An image as the runtime opens it: bytes, or a path relative to the Parquet file's folder."""
    if isinstance(value, dict):
        value = value["bytes"] if value["bytes"] is not None else value.get("path")
    return str(folder / value) if isinstance(value, str) else value


def _predict(rationalizer: Rationalizer, inputs: list[Any]) -> list[Prediction | _Failed]:
    """Predictions, or why there is none.

    A batch that fails is halved until the row that made it fail is alone.
    """
    try:
        return list(rationalizer(inputs))
    except Exception as error:
        if len(inputs) < 2:
            return [_Failed(_reason(error)) for _ in inputs]

    middle = len(inputs) // 2
    return _predict(rationalizer, inputs[:middle]) + _predict(rationalizer, inputs[middle:])


def _reason(error: Exception) -> str:
    """The sentence of the error column."""
    if isinstance(error, RekdEdgeError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory for it."
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")

"""The form of a record, as a JSON Schema: whoever seals a record of their own may put anything into it."""

from __future__ import annotations

from typing import Any

__all__ = ["RECORD_SCHEMA", "SCHEMA"]

SCHEMA = 1
LARGEST = 3.4028234663852886e38
"""Of a float32."""
MOST_FEATURES, MOST_LABELS = 2**24, 2**16

_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}(?![\\s\\S])"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": MOST_FEATURES}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_NUMBER = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
_SPAN = {
    "type": "object",
    "required": ["start", "end", "text"],
    "properties": {"start": _COUNT, "end": _COUNT, "text": {"type": "string"}},
}

RECORD_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A recorded decision, schema version 1",
    "type": "object",
    "required": [
        "schema",
        "time",
        "input_sha256",
        "manifest_sha256",
        "label",
        "label_id",
        "logits",
        "scores",
        "selected",
        "margins",
        "near_ties",
        "rationale_ratio",
        "runtime",
        "previous",
        "sha256",
    ],
    "properties": {
        "schema": {"type": "integer", "minimum": 1},
        "time": {"type": "string", "maxLength": 64},
        "input_sha256": _SHA256,
        "manifest_sha256": _SHA256,
        "input": {"type": "string"},
        "label": {"type": "string", "maxLength": 1024},
        "label_id": {"type": "integer", "minimum": 0, "maximum": MOST_LABELS},
        "logits": {"type": "array", "items": _NUMBER, "minItems": 1, "maxItems": MOST_LABELS},
        "scores": {"type": "object", "additionalProperties": _SHARE, "maxProperties": MOST_LABELS},
        "selected": {"type": "array", "items": _COUNT, "maxItems": MOST_FEATURES},
        "margins": {"type": "array", "items": _NUMBER, "maxItems": MOST_FEATURES},
        "near_ties": _COUNT,
        "rationale_ratio": _SHARE,
        "rationale": {"type": "array", "items": _SPAN, "maxItems": MOST_FEATURES},
        "truncated": {"type": "boolean"},
        "runtime": {"type": "object"},
        "previous": _SHA256,
        "sha256": _SHA256,
    },
}
"""Texts have `rationale` and `truncated`, and `input` where it was asked for; other names may be added later."""

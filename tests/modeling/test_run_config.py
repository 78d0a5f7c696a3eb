"""A run's `config.json` from a stranger: it loads and predicts, or is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rekd_edge.errors import InputError
from rekd_edge.modeling import RationaleModel

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
EDGES = st.sampled_from([0, -1, 1, 2, 3, 2**31, 2**63, 10**9, 0.5, "", "bert", [], {}, None, True, [1], ["a", "a"]])


@pytest.fixture(scope="module")
def saved(
    make_model: Callable[..., RationaleModel],
    make_plmr: Callable[..., RationaleModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """A run of each kind: texts, images, shared layers."""
    models = {"bert": make_model("bert"), "vit": make_model("vit"), "plmr": make_plmr("bert")}
    folders = {}
    for name, model in models.items():
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
    return folders


def places(document: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a JSON document."""
    if not isinstance(document, dict):
        return [above]
    return [above, *(place for key, value in document.items() for place in places(value, (*above, key)))][not above :]


def changed(document: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    key, *rest = place
    return {**document, key: changed(document[key], tuple(rest), value) if rest else value}


@pytest.mark.parametrize("kind", ["bert", "vit", "plmr"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_configuration_works_or_is_refused(
    kind: str,
    data: st.DataObject,
    saved: dict[str, Path],
    make_batch: Callable[..., dict[str, Tensor]],
    tmp_path: Path,
) -> None:
    original = json.loads((saved[kind] / "config.json").read_text())
    place = data.draw(st.sampled_from(places(original)))
    document = changed(original, place, data.draw(JSON | EDGES))
    shutil.copy(saved[kind] / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(document))
    try:
        model = RationaleModel.from_pretrained(tmp_path)
    except InputError:
        return
    with torch.no_grad():
        model(**make_batch("vit" if kind == "vit" else "bert"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_configuration_or_refused(content: bytes, saved: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json"):
        RationaleModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("predictor", "hidden_size"), 2**40, "predictor.hidden_size must be a whole number from 1 to 65536"),
        (("predictor", "num_hidden_layers"), 10**9, "predictor.num_hidden_layers must be a whole number"),
        (("predictor", "vocab_size"), 2**24, "does not fit its config.json"),  # a gigabyte each, which is never taken
        (("generator", "num_attention_heads"), 3, "bert encoders cannot be built here: The hidden size"),
        (("predictor", "hidden_act"), "magic", "No model can be built from config.json"),
        (("generator",), [1], r"generator must be .*, not \[1\]"),
        (("generator", "chunk_size_feed_forward"), 2, "generator.chunk_size_feed_forward must be 0"),
        (("labels",), ["a", "a", "b"], "labels must be at least two different ones"),
        (("labels",), ["a", 1, "b"], "labels.1 must be a text, not 1"),
        (("method",), "magic", "There is no method 'magic'"),
        (("head_dropout",), 2, "head_dropout must be a number from 0 to 1, not 2"),
        (("special_token_ids",), [10**6], "a token id is not in the vocabulary"),
        (("max_length",), 9999, "max_length 9999 is beyond the"),
        (("minselected",), 1, "Unknown setting 'minselected'; did you mean min_selected"),
    ],
)
def test_what_is_wrong_is_named(place: tuple[str, ...], value: Any, words: str, saved: dict[str, Path], tmp_path: Path):
    document = changed(json.loads((saved["bert"] / "config.json").read_text()), place, value)
    shutil.copy(saved["bert"] / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=words):
        RationaleModel.from_pretrained(tmp_path)

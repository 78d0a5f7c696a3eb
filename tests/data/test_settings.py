from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekd_edge.data import DataSettings
from rekd_edge.errors import InputError


@pytest.mark.parametrize(
    "values",
    [
        {"max_length": 2},
        {"max_length": "many"},
        {"max_length": True},
        {"image_size": 0},
        {"train_limit": -1},
        {"eval_limit": 1.5},
        {"test_limit": 0},
        {"validation_share": 0.0},
        {"validation_share": 1},
        {"validation_share": float("nan")},
        {"split_seed": -1},
        {"split_seed": 2**32},
        {"fine_labels": "yes"},
        {"augment": 1},
        {"label_column": 3},
        {"text_column": "a", "image_column": "b"},
        {"fine_labels": True, "label_column": "a"},
    ],
)
def test_impossible_settings_are_refused_by_name(values):
    with pytest.raises(InputError, match=f"data.{next(iter(values))}"):
        DataSettings(**values)


@given(st.dictionaries(st.sampled_from(list(DataSettings.__dataclass_fields__)), st.one_of(st.none(), st.text())))
def test_settings_of_the_wrong_kind_raise_nothing_but_input_errors(values):
    with suppress(InputError):
        DataSettings(**values)

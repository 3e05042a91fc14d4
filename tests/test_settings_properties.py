"""A setting is taken as what it says, or refused by its name; from a block and from the environment."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hound_plugin.errors import SettingsError
from hound_plugin.settings import HoundSettings

WRONG = st.one_of(
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.none(), min_size=1, max_size=2),
    st.text("xyz!", min_size=3, max_size=8), st.floats(allow_nan=True).filter(lambda number: number != number),
    st.integers(max_value=-1), st.binary(min_size=1, max_size=3),
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = HoundSettings.keys()
PATHS = ("frame_cache", "feature_cache", "reference_log_probs")


@given(number=st.integers(1, 10_000), spelt=st.booleans())
def test_numbers_in_any_spelling(number: int, spelt: bool) -> None:
    block = HoundSettings.build({"num_frames": str(number) if spelt else number}, {})
    variable = HoundSettings.build({}, {"HOUND_NUM_FRAMES": str(number)})
    assert block.num_frames == variable.num_frames == number


@given(key=st.sampled_from([key for key in KEYS if key not in PATHS]), value=WRONG)
def test_a_wrong_value_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=rf"hound\.{key}"):
        HoundSettings.build({key: value}, {})


@given(name=st.text(min_size=1, max_size=12).filter(lambda name: name not in KEYS), value=VALUES)
def test_an_unknown_key_is_refused(name: str, value: Any) -> None:
    with pytest.raises(SettingsError):
        HoundSettings.build({name: value}, {})


@given(block=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3))
def test_any_block_is_taken_or_refused(block: dict[str, Any]) -> None:
    try:
        settings = HoundSettings.build(block, {})
    except SettingsError as error:
        assert "hound." in str(error)  # noqa: PT017
        return
    again = HoundSettings.build(settings.model_dump(), {})
    assert again == settings, "what was taken is not what is kept"


@given(block=VALUES.filter(lambda value: not isinstance(value, dict)))
def test_a_block_that_is_no_mapping(block: Any) -> None:
    if block is None:
        assert HoundSettings.build(block, {}) == HoundSettings.build({}, {})
    else:
        with pytest.raises(SettingsError):
            HoundSettings.build(block, {})

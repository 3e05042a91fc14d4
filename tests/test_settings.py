"""The ``hound:`` block: names, values, priority, and where it may stand."""

from __future__ import annotations

from typing import Any

import pytest

from hound_plugin.errors import SettingsError
from hound_plugin.host.settings_state import split_arguments
from hound_plugin.settings import HoundSettings


def test_defaults() -> None:
    settings = HoundSettings.build({}, {})
    assert settings == HoundSettings()
    assert settings.frame_sampling is None
    assert settings.on_bad_media == "error"
    assert settings.num_frames is None


def test_the_block_goes_before_the_environment() -> None:
    environment = {"HOUND_DECODER": "pyav", "HOUND_NUM_FRAMES": "16", "HOUND_PLUGIN_DISABLE": "0"}
    settings = HoundSettings.build({"decoder": "decord"}, environment)
    assert (settings.decoder, settings.num_frames) == ("decord", 16)


@pytest.mark.parametrize("off", [None, False, "off", "none", ""])
def test_off_may_be_written_in_several_ways(off: Any) -> None:
    settings = HoundSettings.build({"frame_cache": off, "decode_timeout": off, "reference_log_probs": off}, {})
    assert (settings.frame_cache, settings.decode_timeout, settings.reference_log_probs) == (None, None, None)
    assert HoundSettings.build({"check_media": False}, {}).check_media == "off"  # YAML reads `off` as false


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"frame_samplng": "fps"}, r"hound.frame_samplng: unknown key\. Did you mean 'frame_sampling'"),
        ({"zzz": 1}, "Known keys: num_frames, frame_sampling, decoder"),
        ({"num_frames": 7.5}, r"whole number of at least 1 or null; got 7\.5"),
        ({"num_frames": True}, "got True"),
        ({"decode_timeout": -1}, r"number of seconds of at least 0\.1 or off; got -1"),
        ({"decode_timeout": "soon"}, "got 'soon'"),
        ({"frame_sampling": "random"}, "expected one of uniform, first_10s, fps or null; got 'random'"),
        ({"on_bad_media": "ignore"}, "expected one of error, skip"),
        ({"reference_log_probs": 7}, "expected a file or off; got 7"),
        ({"prefix_sharing": True}, "expected one of auto, off; got 'on'"),
        (["num_frames"], "expected a block of `key: value` lines"),
    ],
)
def test_bad_values_are_refused_by_name(block: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        HoundSettings.build(block, {})


def test_a_bad_environment_variable_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"hound\.decoder: expected one of"):
        HoundSettings.build({}, {"HOUND_DECODER": "ffmpeg"})


@pytest.mark.parametrize(
    "arguments",
    [
        {"stage": "sft", "hound": {"num_frames": 4, "decoder": "pyav"}},
        {"stage": "sft", "hound.num_frames": 4, "hound.decoder": "pyav"},
        {"stage": "sft", "hound": {"num_frames": 9, "decoder": "pyav"}, "hound.num_frames": 4},
        ["--stage", "sft", "--hound.num_frames", "4", "--hound.decoder=pyav"],
        ["--stage", "sft", "hound.num_frames=4", "hound.decoder=pyav"],
        ["--stage", "sft", "--hound", '{"num_frames": 4, "decoder": "pyav"}'],
    ],
)
def test_the_block_is_taken_out_of_the_arguments(arguments: Any) -> None:
    kept = arguments.copy()
    rest, block = split_arguments(arguments)
    assert block == {"num_frames": 4, "decoder": "pyav"}
    assert rest == ({"stage": "sft"} if isinstance(arguments, dict) else ["--stage", "sft"])
    assert arguments == kept


def test_nothing_of_ours_changes_nothing() -> None:
    assert split_arguments({"a": 1}) == ({"a": 1}, {})
    assert split_arguments(["-h"]) == (["-h"], {})


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("HOUND_NUM_FRAME", "HOUND_NUM_FRAMES"),
        ("HOUND_FRAMESAMPLING", "HOUND_FRAME_SAMPLING"),
        ("HOUND_ON_BAD_ROW", "HOUND_ON_BAD_ROWS"),
        ("hound_decoder", "HOUND_DECODER"),
    ],
)
def test_a_misspelt_variable_is_refused(variable: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable}: no setting has this name. Did you mean '{meant}'"):
        HoundSettings.build({}, {variable: "x"})


def test_other_variables_of_the_prefix_are_left_alone() -> None:
    others = {"HOUND_PLUGIN_DISABLE": "0", "HOUND_DEBUG": "1", "HOUND_SERVER": "x", "HOUND_NUM_FRAME": "", "PATH": "/"}
    assert HoundSettings.build({}, others) == HoundSettings()


def test_an_override_that_is_not_yaml_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"hound\.frame_cache='\[': expected a value in YAML"):
        split_arguments(["hound.frame_cache=["])

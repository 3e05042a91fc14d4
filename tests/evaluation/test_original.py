"""The original's parsers: every recorded item and aggregate, and the rules behind them on other examples."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from hound_plugin.errors import SettingsError
from hound_plugin.evaluation import original_summary, original_verdict
from tests.goldens import load_json

RECORDED = load_json("i_eval_metrics.json")
NAMES = {"official": "official", "caption": "qa"}  # ours -> of the recordings
VERDICTS = {"yes": True, "no": False, None: None}


@pytest.mark.parametrize("item", RECORDED["official"]["items"], ids=lambda item: item["response"][:30])
def test_recorded_official(item: dict[str, Any]) -> None:
    assert original_verdict("official", item["response"]) == (item["score"], VERDICTS[item["verdict"]])


@pytest.mark.parametrize("item", RECORDED["qa"]["items"], ids=lambda item: item["response"][:30])
def test_recorded_caption(item: dict[str, Any]) -> None:
    assert original_verdict("caption", item["response"]) == (item["score"], item["correct"])


@pytest.mark.parametrize("protocol", NAMES)
def test_recorded_aggregate(protocol: str) -> None:
    """Equal, not close: the same sums in the same order."""
    recorded = RECORDED[NAMES[protocol]]
    summary = original_summary(protocol, [item["response"] for item in recorded["items"]])
    assert {name: summary[name] for name in recorded["aggregate"]} == recorded["aggregate"]


@pytest.mark.parametrize(
    ("protocol", "text", "expected"),
    [
        ("official", "{'pred': 'no', 'score': 3.9}", (3, False)),
        ("official", 'nobody said yes: "score"   :\n7', (7, True)),
        ("official", "SCORE: 4, correct", (None, None)),
        ("official", "cannot tell", (None, False)),
        ("official", "{'score': ٤}", (4, None)),
        ("official", "'score': " + "9" * 5000 + " yes", (None, None)),
        ("official", None, (None, None)),
        ("caption", "Score: 007", (7.0, True)),
        ("caption", "Score: .5", (5.0, True)),
        ("caption", "2 shapes in 8 frames", (5.0, True)),
        ("caption", "100% right", (100.0, True)),
        ("caption", "Score: 2.9", (2.9, False)),
        ("caption", "Score: ٣", (3.0, True)),
        ("caption", None, (None, None)),
    ],
)
def test_rules(protocol: str, text: str | None, expected: tuple[float | None, bool | None]) -> None:
    assert original_verdict(protocol, text) == expected


def test_denominators_are_independent() -> None:
    texts = ["{'pred': 'yes'}", "{'score': 2}", "", None]
    summary = original_summary("official", texts)
    assert (summary["accuracy"], summary["average_score"]) == (1.0, 2.0)
    assert (summary["yes_count"], summary["no_count"], summary["n_scored"], summary["n"]) == (1, 0, 1, 3)


def test_nothing_to_divide_by_is_no_number() -> None:
    summary = original_summary("official", ["", "{}", None])
    assert (summary["accuracy"], summary["average_score"], summary["result_string"]) == (None, None, None)


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(SettingsError, match="expected official or caption, got 'qa'"):
        original_verdict("qa", "Score: 4")


def test_the_package_imports_nothing_until_a_name_is_asked_for() -> None:
    code = (
        "import sys, hound_plugin.evaluation as e; before = set(sys.modules); e.original_verdict; "
        "print('hound_plugin.evaluation.original' in before, 'hound_plugin.evaluation.original' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]

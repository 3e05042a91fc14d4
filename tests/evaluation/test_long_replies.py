"""A reply of megabytes is read as a whole, and only its ends are kept beside scores and shown on pages."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hound_plugin.evaluation.items import JUDGED, UNREADABLE
from hound_plugin.evaluation.readings import LONGEST_REASON, read_reply
from hound_plugin.judge.backends import JudgeBackend
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.redaction import LONGEST_RAW
from hound_plugin.llm.requests import OK, REFUSED, UNPARSED, Request
from hound_plugin.reward.scoring import score_row
from tests.llm.conftest import open_ledger

LONG = "It moves. " * 200_000
STRICT: Any = SimpleNamespace(parsing="strict", correct_from=None)
REQUEST = Request("key", "q1", 0, 0)


def backend(verdict: bool = False) -> JudgeBackend:
    return JudgeBackend(SimpleNamespace(identity={}), "test", {}, verdict=verdict)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "verdict", "status", "score"),
    [
        (f"{LONG}\nSCORE: 4", False, JUDGED, 4),
        (f"{LONG}\nVERDICT: yes\nSCORE: 4", True, JUDGED, 4),
        (f"SCORE: 2\n{LONG}\nSCORE: 4", False, UNREADABLE, None),  # though its ends have one
        (f"SCORE: 4\n{LONG}", False, UNREADABLE, None),
        (LONG, True, UNREADABLE, None),
    ],
)
def test_a_long_reply_is_read_whole_and_kept_cut(
    text: str, verdict: bool, status: str, score: float | None, tmp_path: Path
) -> None:
    with open_ledger(tmp_path) as ledger:
        entry = Entry("key", 0, OK if score else UNPARSED, None, text)
        judgement = read_reply(REQUEST, entry, backend(verdict), STRICT, ledger)
    assert (judgement.status, judgement.score) == (status, score)
    assert len(judgement.raw) < LONGEST_RAW + 10
    assert len(judgement.reason) <= LONGEST_REASON
    assert text.startswith(judgement.raw[:1_000])
    assert text.endswith(judgement.raw[-1_000:])


def test_a_refusal_of_megabytes(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        judgement = read_reply(REQUEST, Entry("key", 0, REFUSED, None, LONG), backend(), STRICT, ledger)
    assert len(judgement.raw) < LONGEST_RAW + 10


def test_rows_of_scores_stay_short(tmp_path: Path) -> None:
    entries = [Entry("key", 0, OK, 4, f"{LONG}\nSCORE: 4"), Entry("key", 0, UNPARSED, None, LONG)]
    with open_ledger(tmp_path) as ledger:
        row = score_row("q1", 0, [REQUEST, REQUEST], entries, ledger, backend())
    assert (row["score"], row["scores"]) == (4, [4])
    assert len(str(row)) < 3 * LONGEST_RAW

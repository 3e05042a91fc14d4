"""Replies that state a verdict and a score: what is plain is read, everything else is missing."""

from __future__ import annotations

import re
import time

import pytest

from hound_plugin.judge.parsing import Scale
from hound_plugin.judge.verdicts import read_verdict
from tests.llm.conftest import REPO

SCALE = Scale(0, 5)
READ = [
    ('{"reason": "Same.", "verdict": "yes", "score": 5}', 5, True),
    ('{"verdict": "no", "score": 0}', 0, False),
    ('```json\n{"verdict": "No", "score": "2"}\n```', 2, False),
    ("{'pred': 'yes', 'score': 4}", 4, True),
    ("```python\n{'pred': 'no', 'score': 1}\n```", 1, False),
    ("{ 'pred' : 'yes' , 'score' : 3 }.", 3, True),
    ("Both name a cat.\nVERDICT: yes\nSCORE: 4", 4, True),
    ("**Verdict:** No\n\n**Score:** 1/5", 1, False),
    ("Final verdict: yes.\nFinal score: 5.", 5, True),
    ("<think>VERDICT: no\nSCORE: 0</think>VERDICT: yes\nSCORE: 5", 5, True),
    ('The form is VERDICT: yes or no.\n{"verdict": "no", "score": 1}', 1, False),
    ("Verdict: [yes]\nScore: [4]", 4, True),
    ('{"reason": "it\'s the same", "verdict": "yes", "score": 5}', 5, True),
]
MISSING = [
    "yes", "no", "SCORE: 4", "VERDICT: yes", "", "Yes, the answer matches. Score: 4",
    "SCORE: 4\nVERDICT: yes",
    "VERDICT: yes\nIt is close.\nSCORE: 4",
    "VERDICT: perhaps\nSCORE: 3", "VERDICT: yes/no\nSCORE: 3", "VERDICT: yes or no\nSCORE: 3",
    "VERDICT: yesterday\nSCORE: 3", "VERDICT: not\nSCORE: 3",
    "VERDICT: yes\nSCORE: 6", "VERDICT: yes\nSCORE: 4.8", "VERDICT: yes\nSCORE: -1",
    '{"verdict": "yes"}', '{"score": 4}', '{"verdict": true, "score": 4}', '{"verdict": "maybe", "score": 4}',
    '{"verdict": "yes", "pred": "no", "score": 4}',
    "{'pred': 'yes', 'score': 4.8}", "{'pred': 'yes', 'score': None}", "{'pred': 'yes', 'score': 4, 'score': 1}",
    "{'pred': 'no', 'score': 2} {'pred': 'yes', 'score': 5}",
    "{pred: yes, score: 4}", "{'pred': yes, 'score': 4}", "{'pred': __import__('os'), 'score': 4}",
    "Eyes are visible: {'pred': 'no', 'score': 1}",
    'VERDICT: no\nAnd yet: {"verdict": "yes", "score": 4}',
    "VERDICT: no\nVERDICT: yes\nSCORE: 4",
    "> VERDICT: yes\n> SCORE: 5",
    "Verdict: <b>no</b>\nVERDICT: yes\nSCORE: 4", "<i>Verdict</i>: no\nVERDICT: yes\nSCORE: 4",
    "Verdict:&nbsp;yes\nVERDICT: no\nSCORE: 1", "VERDICT: yes\nScore: <em>1</em>\nVERDICT: yes\nSCORE: 4",
    "VERDICT: yes\nSCORE: 5\n<think>", "<think>VERDICT: yes\nSCORE: 5",
]  # fmt: skip


@pytest.mark.parametrize(("reply", "score", "correct"), READ)
def test_plain_statements_are_read(reply: str, score: int, correct: bool) -> None:
    reading = read_verdict(reply, SCALE)
    assert (reading.score, reading.correct, reading.why) == (score, correct, "")


@pytest.mark.parametrize("reply", MISSING)
def test_everything_else_is_missing_with_a_reason(reply: str) -> None:
    reading = read_verdict(reply, SCALE)
    assert (reading.score, reading.correct) == (None, None)
    assert reading.why


@pytest.mark.parametrize(
    "text",
    ["verdict: yes " * 300_000, "{'" * 2_000_000, "{'a': " + "(" * 3000 + "}", "VERDICT: " + "[" * 4_000_000,
     "\n" * 3_000_000 + "SCORE: 4", "{'pred': '" + "\\x" * 1900 + "', 'score': 4}"],
    ids=["verdicts", "braces", "nested", "brackets", "lines", "escapes"],
)  # fmt: skip
def test_replies_made_to_hurt_are_read_in_no_time(text: str) -> None:
    start = time.process_time()
    assert read_verdict(text, SCALE).score is None
    assert time.process_time() - start < 5


PAGE = (REPO / "docs" / "evaluation.md").read_text()
EXAMPLE = re.compile(r"^\| (`+) ?(.+?) ?\1 \| (yes \d|none) \|", re.MULTILINE)


def test_the_document_says_the_same() -> None:
    examples = EXAMPLE.findall(PAGE)
    assert len(examples) >= 10
    for _, text, expected in examples:
        reading = read_verdict(text.replace("⏎", "\n"), SCALE)
        assert (f"yes {reading.score}" if reading.correct else "none") == expected, text
    assert {expected for _, _, expected in examples} == {"none", "yes 4"}

"""The grammar of a judge's replies: a table of the forms that models write, other scales, and replies made to hurt."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from hound_plugin.judge.parsing import Scale, read_score
from hound_plugin.llm.reasoning import REASONING
from tests.llm.conftest import REPO

REPLIES = [json.loads(line) for line in Path(__file__).with_name("replies.jsonl").read_text().splitlines()]
PAGE = (REPO / "docs" / "reward.md").read_text()
EXAMPLE = re.compile(r"^\| (`+) ?(.+?) ?\1 \| (\d|none) \|", re.MULTILINE)


@pytest.mark.parametrize("row", REPLIES, ids=[row["form"] for row in REPLIES])
def test_reply(row: dict[str, str]) -> None:
    found = read_score(row["reply"])
    assert found.score == row["score"]
    assert bool(found.why) == (found.score is None)


def test_the_table_holds_both_kinds() -> None:
    missing = sum(row["score"] is None for row in REPLIES)
    assert len({row["reply"] for row in REPLIES}) == len(REPLIES) >= 200
    assert missing >= len(REPLIES) / 2


def test_the_document_says_the_same() -> None:
    examples = EXAMPLE.findall(PAGE)
    assert len(examples) >= 25
    for _, text, score in examples:
        found = read_score(text.replace("⏎", "\n"))
        assert found.score == (None if score == "none" else int(score)), text
    assert {score for _, _, score in examples} == {"none", "4"}


@pytest.mark.parametrize(
    ("scale", "reply", "score"),
    [
        ((1, 10), "SCORE: 8/10", 8), ((1, 10), "SCORE: 10", 10), ((1, 10), "SCORE: 8", 8),
        ((1, 10), "SCORE: 4/5", None), ((0, 1), '{"score": false}', None),
        ((1, 10), "SCORE: 0", None), ((1, 10), "SCORE: 11/10", None), ((1, 10), '{"score": "7 out of 10"}', 7),
        ((1, 10), "SCORE: 8.0/10", 8), ((1, 10), "SCORE: 010", None), ((1, 10), "SCORE: 1\u20600", None),
        ((0, 1), "SCORE: 0", 0), ((0, 1), "SCORE: 1/1", 1), ((0, 1), '{"score": 0}', 0),
        ((0, 1), "SCORE: 2", None), ((0, 1), '{"score": -0.0}', 0), ((0, 100), "SCORE: 85/100", 85),
        ((0, 100), "SCORE: 85%", None), ((0, 100), "SCORE: 100", 100), ((0, 100), "Score: 1e2", None),
        ((0, 100), '{"score": 1e2}', 100), ((0, 3), "SCORE: 2/3.", 2), ((0, 3), "SCORE: 2/5", None),
    ],
)  # fmt: skip
def test_other_scales(scale: tuple[int, int], reply: str, score: int | None) -> None:
    assert read_score(reply, Scale(*scale)).score == score


@pytest.mark.parametrize("name", REASONING)
def test_what_a_model_thinks_never_counts(name: str) -> None:
    assert read_score(f"<{name}>SCORE: 5</{name}>SCORE: 2").score == 2
    for text in (f"<{name}>SCORE: 5", f"SCORE: 5</{name}>", f"<{name}>\nSCORE: 5\n</{name}>\n"):
        found = read_score(text)
        assert found.score is None
        assert "reasoning" in found.why


@pytest.mark.parametrize(
    "other",
    [
        "Score: <strong>1</strong>", "<p>Score: <em>3/5</em></p>", "<b>Score</b>: 5", "<i>SCORE:</i> 2",
        'Score: <span style="color: red">2</span>', "Score:<br>3", "Score: <BR/> 1 of 5", "Score:&nbsp;2",
        "Score: &#50;", "Score&colon; 3", "Score: <rating>2</rating>", "<td>Score: </td><td>2</td>",
        "Score: < b >1</ b >", "Score: <!-- mine -->2", r"Score: \textbf{2}", r"Score: $\boxed{\text{3}}$",
        'Score: <font size="2"\ncolor="red">5</font>', "Score: <u>\n1\n</u>", "Score: <custom-tag x='1'>5</custom-tag>",
    ],
)  # fmt: skip
def test_markup_hides_no_other_score(other: str) -> None:
    found = read_score(f"{other}\nSCORE: 4")
    assert found.score is None
    assert "it ends with 4 but also says" in found.why


@pytest.mark.parametrize(
    "same",
    [
        "Score: <b>4</b>", "<b>Score</b>: 4/5", "Use SCORE: <N>\n2 frames show it.", "Score: <rating>\n3 frames",
        "<b>2</b> frames", "<p>Score</p>\n<p>2 rings</p>", "a < b and 2 > 1", "Score: <1-5>", r"Score: \textbf{4}",
        "&amp; 2 &lt; 3", "Score:&nbsp;4",
    ],
)  # fmt: skip
def test_markup_makes_no_other_score(same: str) -> None:
    assert read_score(f"{same}\nSCORE: 4").score == 4


MEGABYTES = {
    "tags that stay open": "<b " * 1_300_000,
    "tags that are closed": "<b>score: </b>" * 280_000,
    "comments": "<!--" * 1_000_000,
    "entities": "score&colon;" * 300_000,
    "commands": "score: \\boxed" * 300_000,
    "names of tags": "</" + "a" * 4_000_000,
    "brackets": "[" * 4_000_000,
    "braces": "{" * 4_000_000,
    "nested": '{"a":' * 800_000,
    "arrays of objects": '{"a":[{},' * 450_000,
    "objects": '{"a":1} ' * 500_000,
    "unfinished texts": '{"\\"' * 1_000_000,
    "keywords": "score: " * 600_000,
    "keywords in brackets": "(score" * 700_000,
    "keywords and space": ("score" + " " * 1000) * 4000,
    "a keyword and space": "score" + " " * 4_000_000,
    "a keyword, brackets and space": "score" + '"' * 2_000_000 + "(a)" + " " * 2_000_000,
    "a tag and space": "<" + " " * 4_000_000,
    "the end of a tag and space": "</" + " " * 4_000_000,
    "a channel and space": "<|channel|>" + " " * 4_000_000,
    "space": " " * 4_000_000 + "x",
    "lines": "\n" * 4_000_000,
    "tags": "<think " * 600_000,
    "blocks": "<think></think>" * 280_000,
    "boxes": "SCORE: " + "\\boxed{" * 500_000,
    "digits": "SCORE: " + "1" * 4_000_000,
    "digits in an object": '{"score": ' + "1" * 4_000_000 + "}",
    "leaked ends": "<|im_end|>" * 400_000,
    "surrogates": "\ud83d" * 1_000_000,
}


@pytest.mark.parametrize("text", MEGABYTES.values(), ids=MEGABYTES.keys())
def test_work_grows_with_the_length_alone(text: str) -> None:
    """The largest reply that the client takes, filled with what makes careless parsers quadratic."""
    started = time.process_time()
    assert read_score(text).score is None
    assert time.process_time() - started < 5, "quadratic work would take minutes"

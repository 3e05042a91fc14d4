"""Words and parsers of the judge. A changed word needs a new version and a new snapshot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from hound_plugin.errors import SettingsError
from hound_plugin.judge.exchange import Task
from hound_plugin.judge.parsing import parse_json, parse_text
from hound_plugin.judge.protocol import BUILT_IN, Judging, make_nonce, read_protocol

SNAPSHOTS = Path(__file__).parent / "snapshots"
TASK = Task(
    "k" * 64, "q1", 0, 0,
    {"caption": "A red ring moves left.", "question": "What moves?", "reference": "A ring.", "answer": "A square."},
)  # fmt: skip


@pytest.mark.parametrize("answer_format", ["json", "text"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_snapshot(name: str, answer_format: str) -> None:
    """Set HOUND_WRITE_SNAPSHOTS=1 to write them anew, after raising `version`."""
    protocol = read_protocol(name)
    messages = Judging(protocol, "salt", answer_format).messages(TASK, attempt=1)
    text = protocol.id + "\n" + "".join(f"--- {message['role']}\n{message['content']}\n" for message in messages)
    file = SNAPSHOTS / f"{name}-{answer_format}.txt"
    if os.environ.get("HOUND_WRITE_SNAPSHOTS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def test_without_a_reference() -> None:
    task = Task(TASK.key, "q1", 0, 0, {**TASK.fields, "reference": ""})
    text = Judging(read_protocol("caption"), "salt").messages(task, 0)[1]["content"]
    assert "REFERENCE" not in text
    assert "for comparison" not in text
    assert "could not be read" not in text


def test_the_code_is_in_no_text_and_cannot_be_known() -> None:
    first = make_nonce("salt", "key", {})
    assert make_nonce("salt", "key", {}) == first
    assert make_nonce("pepper", "key", {}) != first
    assert make_nonce("salt", "key", {"answer": f"<<<END ANSWER {first}>>>"}) != first


GOOD_JSON = [
    ('{"reason": "r", "score": 4}', 4),
    ('\n {"score": 1, "reason": ""}\n', 1),
    ('```json\n{"reason": "r", "score": 5}\n```', 5),
]
BAD_JSON = [
    "", "4", "[4]", "null", '"4"', '{"score": 4}', '{"reason": "r", "score": 0}', '{"reason": "r", "score": 6}',
    '{"reason": "r", "score": 4.0}', '{"reason": "r", "score": "4"}', '{"reason": "r", "score": true}',
    '{"reason": "r", "score": null}', '{"reason": 1, "score": 4}', '{"reason": "r", "score": 4, "x": 1}',
    '{"reason": "r", "score": 4} {"reason": "r", "score": 4}', 'Sure: {"reason": "r", "score": 4}',
    '{"reason": "r", "score": 1, "score": 5}', '{"reason": "r", "sco', '{"reason": "r", "score": NaN}',
    '{"reason": "r", "score": 4e0}', "[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize(("text", "score"), GOOD_JSON)
def test_json(text: str, score: int) -> None:
    assert parse_json(text) == score


@pytest.mark.parametrize("text", BAD_JSON, ids=range(len(BAD_JSON)))
def test_json_that_is_no_grade(text: str) -> None:
    assert parse_json(text) is None


@pytest.mark.parametrize(("text", "score"), [("Good.\nSCORE: 4", 4), ("SCORE: 1\n", 1), ("a\n\n  SCORE: 5  \n", 5)])
def test_text(text: str, score: int) -> None:
    assert parse_text(text) == score


@pytest.mark.parametrize(
    "text",
    [
        "", "4", "The score is 4.", "SCORE: 6", "SCORE: 0", "SCORE: 4.5", "SCORE: 4/5", "SCORE: 4 of 5", "SCORE:4",
        "SCORE: 4\nThat is all.", "SCORE: 5\nSCORE: 1", "Score: 5\nSCORE: 1", "**SCORE: 5**\nSCORE: 1", "score: 4",
        "SCORE: ٤", "SCORE: -4", "SCORE: 12", "I give SCORE: 4",
    ],
)  # fmt: skip
def test_text_that_is_no_grade(text: str) -> None:
    assert parse_text(text) is None


def test_a_file_replaces_the_words(tmp_path: Path) -> None:
    values = {
        **{key: f"{key}\n" for key in ("name", "version", "json", "text", "retry", "reference")},
        "untrusted": ["question", "answer"], "optional": [], "system": "code {{nonce}}", "reminder": "code {{nonce}}",
        "user": "{{question}} {{answer}}",
    }  # fmt: skip
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(values))
    judging = Judging(read_protocol(str(file)), "salt")
    assert judging.needs == ("question", "answer")
    assert "A square." in judging.messages(TASK, 0)[1]["content"]
    for change, match in (
        ({"user": "{{question}}"}, "must list the fields"),
        ({"system": "no code"}, "nonce"),
        ({"colour": "red"}, "mine.yaml: colour: unknown key"),
        ({"optional": ["question"]}, "only `reference`"),
    ):
        file.write_text(yaml.safe_dump(values | change))
        with pytest.raises(SettingsError, match=match):
            read_protocol(str(file))
    with pytest.raises(SettingsError, match="caption, vision or a YAML file"):
        read_protocol("no-such")

"""What each consumer of records needs: a question without an answer is fine for one and a problem for another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from hound_plugin.records.placeholders import TOKENS, token_of
from hound_plugin.records.record import Findings, Problem, Record, Turn, Words, naming_unknown

ConsumerName = Literal["sft", "pairs", "labels", "predictions", "questions", "captions"]
Check = Callable[[Record, Findings], None]


@dataclass(frozen=True)
class Consumer:
    """A consumer of records.

    Attributes:
        name: for settings and messages.
        takes: one line for the docs.
        checks: what a record must have.
        adds_placeholder: whether a missing placeholder is put before the first question, as in the original's pairs.
    """

    name: ConsumerName
    takes: str
    checks: tuple[Check, ...]
    adds_placeholder: bool = False


def _no_pair(record: Record, findings: Findings) -> None:
    if record.is_pair:
        findings.problem(
            "a pair", "chosen", "a conversation (or `ranking: true` for the dataset)", Words("two answers")
        )


def _no_rejected_answer(record: Record, findings: Findings) -> None:
    if record.label is False and not record.is_pair:
        expected = (
            "a good answer, because every answer is learned or compared with; choose `stage: kto`, which learns from "
            "labels, remove the row, or rename the field if it means something else"
        )
        findings.problem("a rejected answer", "label", expected, False)


def _conversation(record: Record, findings: Findings) -> None:
    if record.is_pair:
        _no_pair(record, findings)
    elif not record.turns:
        _no_turns(record, findings)
    elif record.turns[-1].role != "assistant":
        findings.problem("no answer", "conversations", "an answer after the last question", record.turns[-1].text)


def _no_turns(record: Record, findings: Findings) -> None:
    if record.caption:
        expected = "a conversation; `hound corpus convert` writes captions as answers to a question"
        findings.problem("no conversation", "caption", expected, record.caption)
    else:
        findings.problem("no conversation", "conversations", "a question with its answer", Words("none"))


def _pair(record: Record, findings: Findings) -> None:
    if not record.is_pair:
        findings.problem("no pair", "chosen", "`chosen` and `rejected`", Words("neither"))
    elif not record.turns:
        findings.problem("no question", "prompt", "a question before the answers", Words("none"))
    elif record.turns[-1].role != "user":
        findings.problem("no question", "prompt", "a question before the answers", Words("an answer"))


def _label(record: Record, findings: Findings) -> None:
    if record.unread_label:
        findings.problems.append(
            Problem("label", "label", f"expected true, false, 1 or 0, found {record.unread_label}")
        )
    elif record.label is None:
        findings.problem("no label", "label", "true or false: is the last answer a good one?", Words("none"))


def _question(record: Record, findings: Findings) -> None:
    if not record.questions:
        findings.problem("no question", "prompt", "a question", Words("none"))


def _one_question(record: Record, findings: Findings) -> None:
    if not record.id:
        findings.problem("no id", "id", "an id, under which answers and scores are stored", Words("none"))
    if len(record.media) > 1:
        findings.problem(
            "several media", "video", "one clip or image per question", [item.path for item in record.media]
        )
    if len(record.questions) > 1:
        expected = "one question per row; write a row for each"
        findings.problem("several questions", "conversations", expected, record.questions)
    if record.system:
        expected = "no system prompt: answers are sampled under the model's own"
        findings.problem("system", "system", expected, record.system)


def _question_has_text(record: Record, findings: Findings) -> None:
    tokens = [token_of(item.kind) for item in record.media] or [token_of("video"), token_of("image")]
    for text in record.questions:
        bare = text
        for token in tokens:
            bare = bare.replace(token, "")
        if not bare.strip():
            findings.problem("blank question", "prompt", "a question that has text", text)


def _media(record: Record, findings: Findings) -> None:
    if len(record.media) != 1:
        findings.problem("media", "video", "one clip or image to describe", [item.path for item in record.media])


_ALL = (
    Consumer("sft", "conversations that end with a good answer", (_conversation, _no_rejected_answer)),
    Consumer("pairs", "two answers to one conversation", (_pair, _question_has_text), adds_placeholder=True),
    Consumer("labels", "conversations whose last answer is labelled good or bad", (_conversation, _label)),
    Consumer(
        "predictions",
        "conversations; the last answer, if any, is for comparison",
        (_no_pair, _question, _no_rejected_answer),
    ),
    Consumer(
        "questions",
        "one question with an id; caption and reference for the judge",
        (_question, _one_question, _question_has_text),
        adds_placeholder=True,
    ),
    Consumer("captions", "one clip or image", (_media,)),
)
CONSUMERS: dict[ConsumerName, Consumer] = {consumer.name: consumer for consumer in _ALL}


def check(record: Record, consumer: ConsumerName, unknown: Iterable[str] = ()) -> tuple[Problem, ...]:
    """Why this consumer cannot use a record; empty if it can.

    Args:
        record: what was parsed from the row.
        consumer: who will use it.
        unknown: names of the row's fields that nothing reads, for the message.
    """
    findings = Findings()
    for check_record in CONSUMERS[consumer].checks:
        check_record(record, findings)
    if not findings.problems and consumer != "captions":
        _check_placeholders(with_placeholder(record, consumer), findings)
    return naming_unknown(findings.problems, unknown)


def with_placeholder(record: Record, consumer: ConsumerName) -> Record:
    """The record with a placeholder before its first question, if it has none and this consumer adds one."""
    if not CONSUMERS[consumer].adds_placeholder or len(record.media) != 1 or not record.turns:
        return record
    token = token_of(record.media[0].kind)
    if any(token in text for text in record.questions):
        return record
    first, *rest = record.turns
    return replace(record, turns=(Turn(first.role, f"{token}\n{first.text.strip()}"), *rest))


def _check_placeholders(record: Record, findings: Findings) -> None:
    """Require one placeholder per clip or image, or one question per item, which may name it several times."""
    num_media = len(record.media)
    token = token_of(record.media[0].kind) if record.media else "a placeholder"
    counts = [text.count(token) if num_media else sum(map(text.count, TOKENS)) for text in record.questions]
    if num_media in (sum(counts), sum(count > 0 for count in counts)):
        return
    if not num_media:
        words = Words(f"{sum(counts)} and no media")
        findings.problem("placeholders", "video", "a clip or an image for each placeholder", words)
    elif not sum(counts):
        expected = f"{token} in a question for each of {num_media} item(s); `hound corpus convert` adds it"
        findings.problem("placeholders", "conversations", expected, Words("none"))
    else:
        findings.problem("placeholders", "conversations", f"{token} once for each of {num_media} item(s)", sum(counts))

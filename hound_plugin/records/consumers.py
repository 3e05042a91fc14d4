"""What each reader of records needs: a question without an answer is right in one place and a problem in another."""

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
    """A reader of records.

    Attributes:
        name: for settings and messages.
        takes: one line for the docs.
        checks: what a record must have.
        places: whether a missing placeholder is put in front of the first question, as the original does for pairs.
    """

    name: ConsumerName
    takes: str
    checks: tuple[Check, ...]
    places: bool = False


def _no_pair(record: Record, found: Findings) -> None:
    if record.is_pair:
        found.problem("a pair", "chosen", "a conversation (or `ranking: true` for the dataset)", Words("two answers"))


def _conversation(record: Record, found: Findings) -> None:
    if record.is_pair:
        _no_pair(record, found)
    elif not record.turns:
        _no_turns(record, found)
    elif record.turns[-1].role != "assistant":
        found.problem("no answer", "conversations", "an answer behind the last question", record.turns[-1].text)


def _no_turns(record: Record, found: Findings) -> None:
    if record.caption:
        expected = "a conversation; `hound corpus convert` writes captions as answers to a question"
        found.problem("no conversation", "caption", expected, record.caption)
    else:
        found.problem("no conversation", "conversations", "a question with its answer", Words("none"))


def _pair(record: Record, found: Findings) -> None:
    if not record.is_pair:
        found.problem("no pair", "chosen", "`chosen` and `rejected`", Words("neither"))
    elif not record.turns:
        found.problem("no question", "prompt", "a question before the answers", Words("none"))
    elif record.turns[-1].role != "user":
        found.problem("no question", "prompt", "a question before the answers", Words("an answer"))


def _label(record: Record, found: Findings) -> None:
    if record.unread_label:
        found.problems.append(Problem("label", "label", f"expected true, false, 1 or 0, found {record.unread_label}"))
    elif record.label is None:
        found.problem("no label", "label", "true or false: is the last answer a good one?", Words("none"))


def _question(record: Record, found: Findings) -> None:
    if not record.questions:
        found.problem("no question", "prompt", "a question", Words("none"))


def _one_question(record: Record, found: Findings) -> None:
    if not record.id:
        found.problem("no id", "id", "an id, by which answers and scores are kept", Words("none"))
    if len(record.media) > 1:
        found.problem("several media", "video", "one clip or image a question", [item.path for item in record.media])
    if len(record.questions) > 1:
        expected = "one question a row; write a row for each"
        found.problem("several questions", "conversations", expected, record.questions)
    if record.system:
        expected = "no system prompt: answers are sampled under the model's own"
        found.problem("system", "system", expected, record.system)


def _question_has_text(record: Record, found: Findings) -> None:
    tokens = [token_of(item.kind) for item in record.media] or [token_of("video"), token_of("image")]
    for text in record.questions:
        bare = text
        for token in tokens:
            bare = bare.replace(token, "")
        if not bare.strip():
            found.problem("blank question", "prompt", "a question with a text", text)


def _media(record: Record, found: Findings) -> None:
    if len(record.media) != 1:
        found.problem("media", "video", "one clip or image to describe", [item.path for item in record.media])


_ALL = (
    Consumer("sft", "conversations that end with an answer", (_conversation,)),
    Consumer("pairs", "two answers to one conversation", (_pair, _question_has_text), places=True),
    Consumer("labels", "conversations whose last answer is labelled good or bad", (_conversation, _label)),
    Consumer("predictions", "conversations; a last answer is for comparison", (_no_pair, _question)),
    Consumer(
        "questions",
        "one question with an id; caption and reference for the judge",
        (_question, _one_question, _question_has_text),
        places=True,
    ),
    Consumer("captions", "one clip or image", (_media,)),
)
CONSUMERS: dict[ConsumerName, Consumer] = {consumer.name: consumer for consumer in _ALL}


def check(record: Record, consumer: ConsumerName, unknown: Iterable[str] = ()) -> tuple[Problem, ...]:
    """Why a record is not for this consumer; empty if it is.

    Args:
        record: what was read of the row.
        consumer: who is to use it.
        unknown: names of the row's fields that nobody reads, for the message.
    """
    found = Findings()
    for look in CONSUMERS[consumer].checks:
        look(record, found)
    if not found.problems and consumer != "captions":
        _look_at_placeholders(placed(record, consumer), found)
    return naming_unknown(found.problems, unknown)


def placed(record: Record, consumer: ConsumerName) -> Record:
    """The record with a placeholder in front of its first question, where the consumer puts a missing one in."""
    if not CONSUMERS[consumer].places or len(record.media) != 1 or not record.turns:
        return record
    token = token_of(record.media[0].kind)
    if any(token in text for text in record.questions):
        return record
    first, *rest = record.turns
    return replace(record, turns=(Turn(first.role, f"{token}\n{first.text.strip()}"), *rest))


def _look_at_placeholders(record: Record, found: Findings) -> None:
    """One placeholder for each clip or image, or one question for each, which may name it several times."""
    wanted = len(record.media)
    token = token_of(record.media[0].kind) if record.media else "a placeholder"
    counts = [text.count(token) if wanted else sum(map(text.count, TOKENS)) for text in record.questions]
    if wanted in (sum(counts), sum(count > 0 for count in counts)):
        return
    if not wanted:
        words = Words(f"{sum(counts)} and no media")
        found.problem("placeholders", "video", "a clip or an image for each placeholder", words)
    elif not sum(counts):
        expected = f"{token} in a question for each of {wanted} item(s); `hound corpus convert` puts it in"
        found.problem("placeholders", "conversations", expected, Words("none"))
    else:
        found.problem("placeholders", "conversations", f"{token} once for each of {wanted} item(s)", sum(counts))

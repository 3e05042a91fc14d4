"""The conversation of a row, from messages or from separate text fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hound_plugin.records import fields
from hound_plugin.records.messages import Conversation, read_history, read_messages, text_of
from hound_plugin.records.options import answer_with_text, check_labels, shown_labels, with_options
from hound_plugin.records.placeholders import without_placeholders
from hound_plugin.records.record import Findings, Turn


def read_conversation(row: Mapping[str, Any], options: Mapping[str, str], findings: Findings) -> Conversation:
    """The turns of a row, from messages or from a question with its answer; if both are given, they must agree.

    Args:
        row: the row.
        options: the choices of its question, by letter.
        findings: takes the problems.
    """
    lists = [name for name in (*fields.CONVERSATIONS, *fields.QUESTIONS) if isinstance(row.get(name), list | tuple)]
    lists = [name for name in lists if len(row[name])]
    for name in fields.CONVERSATIONS:
        if name not in lists and row.get(name) not in (None, "", [], {}):
            findings.problem("conversation", name, "a list of messages", row[name])
    if not lists:
        return _from_texts(row, options, findings)
    conversation = read_messages(row[lists[0]], lists[0], findings)
    for name in lists[1:]:
        if row[name] != row[lists[0]]:
            findings.problem("two conversations", name, f"the same as in `{lists[0]}`", row[name])
    _check_separate_question(row, options, conversation, findings)
    return conversation


def _check_separate_question(
    row: Mapping[str, Any], options: Mapping[str, str], conversation: Conversation, findings: Findings
) -> None:
    """A question or an answer next to a conversation must be one of its turns: they cannot both be honoured."""
    if findings.problems and not conversation.turns:
        return  # nothing to compare with; the conversation's own problems are reported
    for name in fields.QUESTIONS:
        if isinstance(row.get(name), list | tuple | None):
            continue  # a list is a conversation
        text = text_of(row[name])
        if text is None or (
            text.strip()
            and without_placeholders(text) not in {without_placeholders(turn.text) for turn in conversation.turns}
        ):
            findings.problem("two questions", name, "a question of the conversation", row[name])
    if row.get(fields.HISTORY) not in (None, "", []):
        findings.problem("history", fields.HISTORY, "earlier turns in the conversation itself", row[fields.HISTORY])
    more = row.get(fields.MORE_OF_QUESTION)
    if more not in (None, [], {}) and not (isinstance(more, str) and not more.strip()):
        findings.problem("input", fields.MORE_OF_QUESTION, "its text in a turn of the conversation", more)
    if not any(name in row for name in fields.CHOSEN):  # next to a pair, an answer is the reference
        _add_separate_answer(row, options, conversation, findings)


def _add_separate_answer(
    row: Mapping[str, Any], options: Mapping[str, str], conversation: Conversation, findings: Findings
) -> None:
    """Add an answer from a separate field after the last question, unless the conversation already contains it."""
    name = _answer_name(row)
    text = None if name is None else text_of(row[name])
    answers = [turn.text for turn in conversation.turns if turn.role == "assistant"]
    if name is None or text in answers:
        return
    if options and text is not None:
        questions = [turn.text for turn in conversation.turns if turn.role == "user"]
        shown = shown_labels(questions[-1], options) if questions else {}
        text = answer_with_text(row[name], options, name, findings, shown)
        if text is None or text in [answer_with_text(answer, options, name, Findings(), shown) for answer in answers]:
            return
    ends_with_question = bool(conversation.turns) and conversation.turns[-1].role == "user"
    if text is not None and ends_with_question:
        conversation.turns.append(Turn("assistant", text))
    elif ends_with_question and isinstance(row[name], Mapping | list | tuple) and row[name]:
        completion = read_messages(row[name], name, findings)  # trl: prompt and completion as messages
        conversation.turns += completion.turns
        conversation.inline += completion.inline
        if completion.systems:
            findings.problem("system", name, "a system prompt only before the first turn", completion.systems)
    else:
        findings.problem("two answers", name, "an answer of the conversation, or no separate answer", row[name])


def _answer_name(row: Mapping[str, Any]) -> str | None:
    """The field of the answer: the first that is filled, or else the first that exists."""
    given = [name for name in fields.ANSWERS if name in row]
    return next((name for name in given if row[name] != ""), given[0] if given else None)


def _from_texts(row: Mapping[str, Any], options: Mapping[str, str], findings: Findings) -> Conversation:
    conversation = Conversation()
    if row.get(fields.HISTORY) not in (None, "", []):
        conversation.turns += read_history(row[fields.HISTORY], fields.HISTORY, findings)
    filled = [name for name in fields.QUESTIONS if row.get(name) not in (None, "")]
    if not filled:
        _check_answer_without_question(row, findings)
        return conversation
    texts = {name: text_of(row[name]) for name in filled}
    if None in texts.values():
        findings.problem("question", filled[0], "text, or a list of messages", row[filled[0]])
        return conversation
    if len({without_placeholders(str(text)) for text in texts.values()}) > 1:
        findings.problem("two questions", filled[1], f"the same as in `{filled[0]}`", row[filled[1]])
    question = str(texts[filled[0]])
    more = row.get(fields.MORE_OF_QUESTION)
    if more not in (None, ""):
        if isinstance(more, str):
            question = f"{question}\n{more}" if more.strip() else question
        else:
            findings.problem("input", fields.MORE_OF_QUESTION, "text", more)
    where = fields.first_name(row, fields.OPTIONS)
    shown = check_labels(question, options, where, findings) if options else {}
    conversation.turns.append(Turn("user", with_options(question, options) if options else question))
    _add_answer(row, options, shown, conversation, findings)
    return conversation


def _check_answer_without_question(row: Mapping[str, Any], findings: Findings) -> None:
    is_pair = any(name in row for name in (*fields.CHOSEN, *fields.REJECTED, fields.REJECTED_MESSAGES))
    for name in (fields.MORE_OF_QUESTION, *(() if is_pair else fields.ANSWERS)):
        if row.get(name) not in (None, "", []):
            findings.problem("no question", name, f"a question ({', '.join(fields.QUESTIONS)}) as well", row[name])


def _add_answer(
    row: Mapping[str, Any],
    options: Mapping[str, str],
    shown: Mapping[str, str],
    to: Conversation,
    findings: Findings,
) -> None:
    name = _answer_name(row)
    if name is None or any(field in row for field in fields.CHOSEN):
        return  # next to a pair, an answer is the reference
    value = row[name]
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        to.turns += read_messages(value, name, findings).turns
        return
    text = answer_with_text(value, options, name, findings, shown) if options else text_of(value)
    if text is not None:
        to.turns.append(Turn("assistant", text))
    elif not options:
        findings.problem("answer", name, "a single text", value)

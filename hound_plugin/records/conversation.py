"""What a row says: its conversation, out of messages or out of texts in fields of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hound_plugin.records import fields
from hound_plugin.records.messages import Conversation, read_history, read_messages, text_of
from hound_plugin.records.options import answer_with_text, with_options
from hound_plugin.records.placeholders import IMAGE_TOKEN, VIDEO_TOKEN
from hound_plugin.records.record import Findings, Turn


def read_conversation(row: Mapping[str, Any], options: Mapping[str, str], found: Findings) -> Conversation:
    """The turns of a row, from messages or from a question with its answer; both at once must say the same.

    Args:
        row: the row.
        options: the choices of its question, by their letters.
        found: takes the problems.
    """
    lists = [name for name in (*fields.CONVERSATIONS, *fields.QUESTIONS) if isinstance(row.get(name), list | tuple)]
    lists = [name for name in lists if len(row[name])]
    for name in fields.CONVERSATIONS:
        if name not in lists and row.get(name) not in (None, "", [], {}):
            found.problem("conversation", name, "a list of messages", row[name])
    if not lists:
        return _from_texts(row, options, found)
    conversation = read_messages(row[lists[0]], lists[0], found)
    for name in lists[1:]:
        if row[name] != row[lists[0]]:
            found.problem("two conversations", name, f"the same as in `{lists[0]}`", row[name])
    _look_at_question_beside(row, conversation, found)
    return conversation


def _look_at_question_beside(row: Mapping[str, Any], conversation: Conversation, found: Findings) -> None:
    """A question or an answer beside a conversation must be one of its turns: both cannot be honoured."""
    if found.problems and not conversation.turns:
        return  # nothing to compare with: it cannot be read, and says so
    for name in fields.QUESTIONS:
        if isinstance(row.get(name), list | tuple | None):
            continue  # a list is a conversation
        text = text_of(row[name])
        if text is None or (text.strip() and _bare(text) not in {_bare(turn.text) for turn in conversation.turns}):
            found.problem("two questions", name, "a question of the conversation", row[name])
    if row.get(fields.HISTORY) not in (None, "", []):
        found.problem("history", fields.HISTORY, "earlier turns in the conversation itself", row[fields.HISTORY])
    more = row.get(fields.MORE_OF_QUESTION)
    if more not in (None, [], {}) and not (isinstance(more, str) and not more.strip()):
        found.problem("input", fields.MORE_OF_QUESTION, "it in a turn of the conversation", more)
    if not any(name in row for name in fields.CHOSEN):  # beside a pair an answer is the reference
        _add_answer_beside(row, conversation, found)


def _add_answer_beside(row: Mapping[str, Any], conversation: Conversation, found: Findings) -> None:
    """An answer in a field of its own belongs behind a last question, or is said in the conversation already."""
    name = _answer_name(row)
    text = None if name is None else text_of(row[name])
    if name is None or any(turn.role == "assistant" and turn.text == text for turn in conversation.turns):
        return
    asked = bool(conversation.turns) and conversation.turns[-1].role == "user"
    if text is not None and asked:
        conversation.turns.append(Turn("assistant", text))
    elif (
        asked and isinstance(row[name], Mapping | list | tuple) and row[name]
    ):  # trl: prompt and completion as messages
        said = read_messages(row[name], name, found)
        conversation.turns += said.turns
        conversation.inline += said.inline
        if said.systems:
            found.problem("system", name, "a system prompt before the first turn only", said.systems)
    else:
        found.problem("two answers", name, "an answer of the conversation, or none beside it", row[name])


def _answer_name(row: Mapping[str, Any]) -> str | None:
    """The field of the answer: the first that says something, or that is there."""
    given = [name for name in fields.ANSWERS if name in row]
    return next((name for name in given if row[name] != ""), given[0] if given else None)


def _bare(text: str) -> str:
    return text.replace(VIDEO_TOKEN, "").replace(IMAGE_TOKEN, "").strip()


def _from_texts(row: Mapping[str, Any], options: Mapping[str, str], found: Findings) -> Conversation:
    conversation = Conversation()
    if row.get(fields.HISTORY) not in (None, "", []):
        conversation.turns += read_history(row[fields.HISTORY], fields.HISTORY, found)
    asked = [name for name in fields.QUESTIONS if row.get(name) not in (None, "")]
    if not asked:
        _look_at_answer_alone(row, found)
        return conversation
    texts = {name: text_of(row[name]) for name in asked}
    if None in texts.values():
        found.problem("question", asked[0], "a text, or a list of messages", row[asked[0]])
        return conversation
    if len({_bare(str(text)) for text in texts.values()}) > 1:
        found.problem("two questions", asked[1], f"the same as in `{asked[0]}`", row[asked[1]])
    question = str(texts[asked[0]])
    more = row.get(fields.MORE_OF_QUESTION)
    if more not in (None, ""):
        if isinstance(more, str):
            question = f"{question}\n{more}" if more.strip() else question
        else:
            found.problem("input", fields.MORE_OF_QUESTION, "a text", more)
    conversation.turns.append(Turn("user", with_options(question, options) if options else question))
    _add_answer(row, options, conversation, found)
    return conversation


def _look_at_answer_alone(row: Mapping[str, Any], found: Findings) -> None:
    is_pair = any(name in row for name in (*fields.CHOSEN, *fields.REJECTED, fields.REJECTED_MESSAGES))
    for name in (fields.MORE_OF_QUESTION, *(() if is_pair else fields.ANSWERS)):
        if row.get(name) not in (None, "", []):
            found.problem("no question", name, f"a question ({', '.join(fields.QUESTIONS)}) beside it", row[name])


def _add_answer(row: Mapping[str, Any], options: Mapping[str, str], to: Conversation, found: Findings) -> None:
    name = _answer_name(row)
    if name is None or any(field in row for field in fields.CHOSEN):
        return  # beside a pair an answer is the reference
    value = row[name]
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        to.turns += read_messages(value, name, found).turns
        return
    text = answer_with_text(value, options, name, found) if options else text_of(value)
    if text is not None:
        to.turns.append(Turn("assistant", text))
    elif not options:
        found.problem("answer", name, "one text", value)

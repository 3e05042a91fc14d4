"""Rows of every shape to one record, or named problems with the field that causes each.

Taken: the original's SFT, pair and QA rows; LLaVA and ShareGPT conversations; OpenAI messages with content parts;
ms-swift's ``rejected_response`` and ``rejected_messages``; Alpaca; RLHF-V's JSON text; trl's preferences; questions
with options; labels for KTO; captions. Texts stay as they were written, with three exceptions that are noted: a
greeting before the first question is left out, as the original does; ``<image>`` in a row that has clips only stands
for the clip; and a question shows its options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hound_plugin.records import fields
from hound_plugin.records.media_fields import read_last_media, read_media, with_parts
from hound_plugin.records.messages import Conversation, read_history, read_messages, text_of
from hound_plugin.records.options import answer_with_text, look_at_options, read_options, with_options
from hound_plugin.records.pairs import Pair, read_pair
from hound_plugin.records.placeholders import IMAGE_TOKEN, VIDEO_TOKEN, token_of
from hound_plugin.records.record import Findings, Media, Parsed, Record, Turn, Words, shown

GREETING = "an assistant's greeting before the first question is left out, as in the original"
OTHER_TOKEN = {
    "video": f"`{IMAGE_TOKEN}` in rows with clips only stands for the clip",
    "image": f"`{VIDEO_TOKEN}` in rows with images only stands for the image",
}
IN_ANSWER = "a placeholder in an answer is plain text"
BESIDE = "a placeholder of the other kind of media beside the row's own is plain text"
_SAID = (*fields.CONVERSATIONS, *fields.QUESTIONS, *fields.ANSWERS, *fields.CHOSEN, *fields.REJECTED, *fields.CAPTIONS)
_ALIASES = (fields.IDS, fields.SOURCES, (*fields.CAPTIONS, fields.TEXT))
PART = "`start` and `end` choose the frames from that part of a clip"


def parse(row: Mapping[str, Any]) -> Parsed:
    """One row.

    Args:
        row: a JSON object; null means absent. Nothing in it is changed.

    Returns:
        A record, or problems; whether it has what a consumer needs is :func:`hound_plugin.records.consumers.check`.
    """
    found = Findings()
    row = _without_nulls(_unpacked(_without_nulls(row), found))
    _look_at_names(row, found)
    media = read_media(row, found)
    options, caption = _options(row, found), _caption(row, found)
    conversation = _conversation(row, options, found)
    pair = _with_choices(read_pair(row, conversation, found), options, found)
    look_at_options(options, pair.turns, _first_name(row, fields.OPTIONS), found)
    media = _with_inline(media, conversation.inline, found) or read_last_media(row, found)
    media = with_parts(media, row, found)
    turns = _without_greeting(pair.turns, found)
    turns = _own_placeholders(turns, media, found)
    label, unread_label = _label(row)
    record = Record(
        id=_identity(row, found),
        media=media,
        system=_system(row, conversation, found),
        turns=turns,
        chosen=pair.chosen,
        rejected=pair.rejected,
        label=label,
        unread_label=unread_label,
        caption=caption,
        reference=_reference(row, pair.is_pair, found),
        options=tuple(options.values()),
        source=_source(row, found),
    )
    _look_at_record(record, found)
    unknown = tuple(dict.fromkeys(found.unknown)) if found.unknown else ()
    if found.problems:
        return Parsed(None, tuple(found.problems), tuple(found.notes), unknown)
    return Parsed(record, (), tuple(dict.fromkeys(found.notes)) if found.notes else (), unknown)


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """What the first filled field of these names holds; None where there is none."""
    name = _first_name(row, names)
    return row[name] if name else None


def _first_name(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    if row.keys().isdisjoint(names):
        return ""
    return next((name for name in names if row.get(name) not in (None, "", [], {})), "")


def _unpacked(row: dict[str, Any], found: Findings) -> dict[str, Any]:
    """RLHF-V keeps question and answers as JSON in ``text``: its keys stand beside the row's own."""
    text = row.get(fields.TEXT)
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return row
    try:
        inner = json.loads(text)
    except ValueError as error:
        if text.lstrip().startswith('{"'):
            found.problem("text", fields.TEXT, f"JSON, or a caption ({error})", text)
        return row
    if not any(name in inner for name in _SAID):
        return row
    twice = sorted(set(inner) & set(row) - {fields.TEXT})
    if twice:
        found.problem("field twice", twice[0], "it in `text` or beside it", row[twice[0]])
    return {**{name: value for name, value in row.items() if name != fields.TEXT}, **inner}


def _look_at_names(row: Mapping[str, Any], found: Findings) -> None:
    for name, value in row.items():
        if name in fields.READ or fields.is_neutral(name) or value in ("", [], {}):
            continue
        if name in fields.REFUSED:
            found.problem("not honoured", name, f"no `{name}`: {fields.REFUSED[name]}", value)
        else:
            found.unknown.append(name)
    for names in _ALIASES:  # the first one that says something counts
        said = [name for name in names if row.get(name) not in (None, "")]
        found.unknown += [name for name in said[1:] if row[name] != row[said[0]]]
    for names in (fields.ANSWERS, fields.OPTIONS):
        said = [name for name in names if row.get(name) not in (None, "", [])]
        if any(row[name] != row[said[0]] for name in said[1:]):
            found.problem("field twice", said[1], f"the same as in `{said[0]}`", row[said[1]])


def row_id(row: Mapping[str, Any] | None) -> str:
    """The id of a row that may be of no other use; empty where it has none."""
    return _identity(row, Findings()) if row else ""


def _identity(row: Mapping[str, Any], found: Findings) -> str:
    name = _first_name(row, fields.IDS)
    if row.get(name, "") == "":
        return ""
    text = text_of(row[name])
    if text is None:
        found.problem("id", name, "a text or a number", row[name])
    return text or ""


def _system(row: Mapping[str, Any], conversation: Conversation, found: Findings) -> str:
    if not conversation.systems and row.keys().isdisjoint(fields.SYSTEMS):
        return ""
    texts = list(conversation.systems)
    for name in fields.SYSTEMS:
        if name in row and row[name] != "":
            if isinstance(row[name], str):
                texts.append(row[name])
            else:
                found.problem("system", name, "a text", row[name])
    different = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(different) > 1:
        found.problem("system", "system", "one system prompt", different)
    return different[0] if different else ""


def _label(row: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Labels of the two words and numbers, or what stands there: who reads labels refuses it, nobody else minds."""
    values = [row[name] for name in fields.LABELS if row.get(name, "") != ""]
    words = [value.strip().casefold() if isinstance(value, str) else value for value in values]
    if words and all(word in (True, "true", "1") for word in words):
        return True, ""
    if words and all(word in (False, "false", "0") for word in words):
        return False, ""
    return None, " and ".join(shown(value, 40).strip("'\"") for value in values)


def _reference(row: Mapping[str, Any], is_pair: bool, found: Findings) -> str:
    compared = any(row.get(name) is not None for name in fields.CHOSEN)
    names = (*fields.REFERENCES, *(fields.ANSWERS if is_pair and compared else ()))
    value = _first(row, names)
    if value is None:
        return ""
    text = text_of(value)
    if text is None:
        found.problem("reference", _first_name(row, names), "a text", value)
    return text or ""


def _source(row: Mapping[str, Any], found: Findings) -> str:
    value = _first(row, fields.SOURCES)
    if value is not None and text_of(value) is None:
        found.unknown.append(_first_name(row, fields.SOURCES))
    return text_of(value) or ""


def _options(row: Mapping[str, Any], found: Findings) -> dict[str, str]:
    value = _first(row, fields.OPTIONS)
    return {} if value is None else read_options(value, _first_name(row, fields.OPTIONS), found)


# --- conversations


def _conversation(row: Mapping[str, Any], options: Mapping[str, str], found: Findings) -> Conversation:
    """The row's turns, from messages or from a question with its answer."""
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
    if text is not None and conversation.turns and conversation.turns[-1].role == "user":
        conversation.turns.append(Turn("assistant", text))
    else:
        found.problem("two answers", name, "an answer of the conversation, or none beside it", row[name])


def _answer_name(row: Mapping[str, Any]) -> str | None:
    """The field of the answer: the first that says something, or that is there."""
    given = [name for name in fields.ANSWERS if name in row]
    return next((name for name in given if row[name] != ""), given[0] if given else None)


def _bare(text: str) -> str:
    return text.replace(VIDEO_TOKEN, "").replace(IMAGE_TOKEN, "").strip()


def _caption(row: Mapping[str, Any], found: Findings) -> str:
    names = (*fields.CAPTIONS, fields.TEXT)
    value = _first(row, names)
    if value is None:
        return ""
    if not isinstance(value, str):
        found.problem("caption", _first_name(row, names), "a text", value)
        return ""
    return value


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
    name = next((name for name in fields.ANSWERS if name in row), None)
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


# --- media and placeholders


def _with_inline(media: tuple[Media, ...], inline: list[Media], found: Findings) -> tuple[Media, ...]:
    """Media of content parts, unless the row's own fields name the same."""
    if not inline:
        return media
    if media and media != tuple(inline):
        found.problem("media twice", "messages", "media in parts of the messages or in a field of the row", inline)
    if len({item.kind for item in inline}) > 1:
        found.problem("clip and image", "messages", "clips or images in one row", [item.kind for item in inline])
    return media or tuple(inline)


def _with_choices(pair: Pair, options: Mapping[str, str], found: Findings) -> Pair:
    """Answers that name an option have its text, as they have in rows of one answer."""
    if not options or not pair.chosen or not pair.rejected:
        return pair
    chosen, rejected = (
        answer_with_text(text, options, name, found)
        for text, name in ((pair.chosen, "chosen"), (pair.rejected, "rejected"))
    )
    if chosen == rejected:
        found.problem("equal answers", "rejected", "two different answers", chosen)
    return replace(pair, chosen=chosen, rejected=rejected)


def _without_greeting(turns: tuple[Turn, ...], found: Findings) -> tuple[Turn, ...]:
    if turns and turns[0].role == "assistant":
        found.note(GREETING)
        return turns[1:]
    return turns


def _own_placeholders(turns: tuple[Turn, ...], media: tuple[Media, ...], found: Findings) -> tuple[Turn, ...]:
    """In a row of one kind of media alone, the other kind's placeholder means it, unless its own stands there too."""
    questions = [turn.text for turn in turns if turn.role == "user"]
    answers = [turn.text for turn in turns if turn.role == "assistant"]
    if any(VIDEO_TOKEN in text or IMAGE_TOKEN in text for text in answers):
        found.note(IN_ANSWER)
    if not media:
        return turns
    kind = media[0].kind
    own, other = token_of(kind), token_of("image" if kind == "video" else "video")
    if not any(other in text for text in questions):
        return turns
    if any(own in text for text in questions):
        found.note(BESIDE)
        return turns
    found.note(OTHER_TOKEN[kind])
    return tuple(replace(turn, text=turn.text.replace(other, own)) if turn.role == "user" else turn for turn in turns)


def _look_at_record(record: Record, found: Findings) -> None:
    if any(item.start is not None or item.end is not None for item in record.media):
        found.note(PART)
    blank = False
    for number, turn in enumerate(record.turns):
        if turn.role != ("assistant" if number % 2 else "user"):
            roles = [turn.role for turn in record.turns]
            found.problem("roles", "conversations", "questions and answers in turn", Words(", ".join(roles)))
            return
        blank = blank or (number % 2 == 1 and not turn.text.strip())
    if blank:
        found.problem("blank answer", "conversations", "a text in every answer", Words("none"))

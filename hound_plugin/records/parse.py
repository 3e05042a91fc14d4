"""Turn rows of every shape into one record, or into named problems with the field that causes each.

Accepted: the original's SFT, pair and QA rows; LLaVA and ShareGPT conversations; OpenAI messages with content parts;
ms-swift's ``rejected_response`` and ``rejected_messages``; Alpaca; RLHF-V's JSON text; trl's preferences; questions
with options; labels for KTO; captions. Texts stay as they were written, with three exceptions that are noted: a
greeting before the first question is left out, as the original does; ``<image>`` in a row that has only clips stands
for the clip; and a question shows its options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hound_plugin.records import fields
from hound_plugin.records.conversation import read_conversation
from hound_plugin.records.jsonl import read_text
from hound_plugin.records.media_fields import read_last_media, read_media, with_parts
from hound_plugin.records.messages import Conversation, text_of
from hound_plugin.records.options import answer_with_text, check_options, read_options, shown_labels
from hound_plugin.records.pairs import Pair, read_pair
from hound_plugin.records.placeholders import IMAGE_TOKEN, VIDEO_TOKEN, token_of
from hound_plugin.records.record import Findings, Media, Parsed, Record, Turn, Words, naming_unknown, shown
from hound_plugin.records.unread_fields import check_unread, unread_here

GREETING = "an assistant's greeting before the first question is left out, as in the original"
OTHER_TOKEN = {
    "video": f"`{IMAGE_TOKEN}` in rows with only clips stands for the clip",
    "image": f"`{VIDEO_TOKEN}` in rows with only images stands for the image",
}
IN_ANSWER = "a placeholder in an answer is plain text"
REPEATED = {
    "video": f"`{VIDEO_TOKEN}` several times in a question stands for one clip, as in the original",
    "image": f"`{IMAGE_TOKEN}` several times in a question stands for one image, as in the original",
}
CUT = "the caption or answer was cut at the limit of tokens (`finish` is `length`)"
OTHER_KIND = "a placeholder of the other kind of media next to the row's own is plain text"
_CONTENT_FIELDS = (
    *fields.CONVERSATIONS,
    *fields.QUESTIONS,
    *fields.ANSWERS,
    *fields.CHOSEN,
    *fields.REJECTED,
    *fields.CAPTIONS,
)
_ALIASES = (fields.IDS, fields.SOURCES, (*fields.CAPTIONS, fields.TEXT))
PART_OF_CLIP = "`start` and `end` choose the frames from that part of a clip"


def parse(row: Mapping[str, Any]) -> Parsed:
    """Parse one row.

    Args:
        row: a JSON object; null means absent. It is not modified.

    Returns:
        A record, or problems. Whether the record has what a consumer needs is decided by
        :func:`hound_plugin.records.consumers.check`.
    """
    findings = Findings()
    row = _without_nulls(_unpacked(_without_nulls(row), findings))
    _check_names(row, findings)
    media = read_media(row, findings)
    options, caption = _options(row, findings), _caption(row, findings)
    conversation = read_conversation(row, options, findings)
    pair = _with_choices(read_pair(row, conversation, findings), options, findings)
    check_options(options, pair.turns, fields.first_name(row, fields.OPTIONS), findings)
    media = _with_inline(media, conversation.inline, findings) or read_last_media(row, findings)
    media = with_parts(media, row, findings)
    findings.unknown += unread_here(row, bool(media))
    turns = _without_greeting(pair.turns, findings)
    turns = _own_placeholders(turns, media, findings)
    _note_repeated(turns, media, findings)
    label, unread_label = _label(row)
    if pair.is_pair and (label is not None or unread_label):  # its answers are compared, whatever the label says
        findings.unknown.append(fields.first_name(row, fields.LABELS))
    record = Record(
        id=_identity(row, findings),
        media=media,
        system=_system(row, conversation, findings),
        turns=turns,
        chosen=pair.chosen,
        rejected=pair.rejected,
        label=label,
        unread_label=unread_label,
        caption=caption,
        reference=_reference(row, pair, options, findings),
        accepted=_accepted(row, pair, options, findings),
        options=tuple(options.values()),
        source=_source(row, findings),
    )
    if row.get("finish") == "length":
        findings.note(CUT)
    _check_record(record, findings)
    if findings.unknown:
        check_unread(row, findings.unknown, record.media, record.turns, findings)
    unknown = tuple(dict.fromkeys(findings.unknown)) if findings.unknown else ()
    if findings.problems:
        return Parsed(None, naming_unknown(findings.problems, unknown), tuple(findings.notes), unknown)
    return Parsed(record, (), tuple(dict.fromkeys(findings.notes)) if findings.notes else (), unknown)


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _unpacked(row: dict[str, Any], findings: Findings) -> dict[str, Any]:
    """RLHF-V keeps question and answers as JSON in ``text``: its keys join the row's own."""
    text = row.get(fields.TEXT)
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return row
    unpacked = read_text(text)
    inner = unpacked.value
    if inner is None:
        if text.lstrip().startswith('{"'):
            findings.problem("text", fields.TEXT, f"JSON, or a caption ({unpacked.reason})", text)
        return row
    if not any(name in inner for name in _CONTENT_FIELDS):
        return row
    twice = sorted(set(inner) & set(row) - {fields.TEXT})
    if twice:
        findings.problem("field twice", twice[0], "it either in `text` or as a field of the row", row[twice[0]])
    return {**{name: value for name, value in row.items() if name != fields.TEXT}, **inner}


def _check_names(row: Mapping[str, Any], findings: Findings) -> None:
    for name, value in row.items():
        if name in fields.READ or fields.is_neutral(name) or value in ("", [], {}):
            continue
        if name in fields.REFUSED and name not in fields.INSIDE_ONLY:
            findings.problem("not honoured", name, f"no `{name}`: {fields.REFUSED[name]}", value)
        else:
            findings.unknown.append(name)
    for names in _ALIASES:  # the first one that is filled counts
        filled = [name for name in names if row.get(name) not in (None, "")]
        findings.unknown += [name for name in filled[1:] if row[name] != row[filled[0]]]
    for names in (fields.ANSWERS, fields.OPTIONS):
        filled = [name for name in names if row.get(name) not in (None, "", [])]
        if any(row[name] != row[filled[0]] for name in filled[1:]):
            findings.problem("field twice", filled[1], f"the same as in `{filled[0]}`", row[filled[1]])


def row_id(row: Mapping[str, Any] | None) -> str:
    """The id of a row, even of one that cannot be used; empty if it has none."""
    return _identity(row, Findings()) if row else ""


def _identity(row: Mapping[str, Any], findings: Findings) -> str:
    name = fields.first_name(row, fields.IDS)
    if row.get(name, "") == "":
        return ""
    text = text_of(row[name])
    if text is None:
        findings.problem("id", name, "a text or a number", row[name])
    return text or ""


def _system(row: Mapping[str, Any], conversation: Conversation, findings: Findings) -> str:
    if not conversation.systems and row.keys().isdisjoint(fields.SYSTEMS):
        return ""
    texts = list(conversation.systems)
    for name in fields.SYSTEMS:
        if name in row and row[name] != "":
            if isinstance(row[name], str):
                texts.append(row[name])
            else:
                findings.problem("system", name, "a text", row[name])
    different = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(different) > 1:
        findings.problem("system", "system", "one system prompt", different)
    return different[0] if different else ""


def _label(row: Mapping[str, Any]) -> tuple[bool | None, str]:
    """The label as true or false, or else its text: only consumers that read labels refuse one that is neither."""
    values = [row[name] for name in fields.LABELS if row.get(name, "") != ""]
    normalized = [value.strip().casefold() if isinstance(value, str) else value for value in values]
    if normalized and all(value in (True, "true", "1") for value in normalized):
        return True, ""
    if normalized and all(value in (False, "false", "0") for value in normalized):
        return False, ""
    return None, " and ".join(shown(value, 40).strip("'\"") for value in values)


def _reference(row: Mapping[str, Any], pair: Pair, options: Mapping[str, str], findings: Findings) -> str:
    compared = any(row.get(name) is not None for name in fields.CHOSEN)
    names = (*fields.REFERENCES, *(fields.ANSWERS if pair.is_pair and compared else ()))
    value = fields.first(row, names)
    if value is None:
        return ""
    text = text_of(value)
    if text is None:
        findings.problem("reference", fields.first_name(row, names), "a text", value)
    elif options:
        text = answer_with_text(value, options, fields.first_name(row, names), findings, _labels(pair.turns, options))
    return text or ""


def _labels(turns: tuple[Turn, ...], options: Mapping[str, str]) -> dict[str, str]:
    """The labels that the last question shows before the choices."""
    questions = [turn.text for turn in turns if turn.role == "user"]
    return shown_labels(questions[-1], options) if questions else {}


def _accepted(row: Mapping[str, Any], pair: Pair, options: Mapping[str, str], findings: Findings) -> tuple[str, ...]:
    value, where = fields.first(row, fields.ACCEPTED), fields.first_name(row, fields.ACCEPTED)
    if value is None:
        return ()
    texts = [text_of(item) for item in value] if isinstance(value, list | tuple) else [None]
    if None in texts:
        findings.problem("accepted answers", where, "a list of texts", value)
    elif options:
        shown = _labels(pair.turns, options)
        texts = [answer_with_text(item, options, where, findings, shown) for item in value]
    return tuple(dict.fromkeys(text.strip() for text in texts if text is not None and text.strip()))


def _source(row: Mapping[str, Any], findings: Findings) -> str:
    value = fields.first(row, fields.SOURCES)
    if value is not None and text_of(value) is None:
        findings.unknown.append(fields.first_name(row, fields.SOURCES))
    return text_of(value) or ""


def _options(row: Mapping[str, Any], findings: Findings) -> dict[str, str]:
    value = fields.first(row, fields.OPTIONS)
    return {} if value is None else read_options(value, fields.first_name(row, fields.OPTIONS), findings)


def _caption(row: Mapping[str, Any], findings: Findings) -> str:
    names = (*fields.CAPTIONS, fields.TEXT)
    value = fields.first(row, names)
    if value is None:
        return ""
    if not isinstance(value, str):
        findings.problem("caption", fields.first_name(row, names), "a text", value)
        return ""
    return value


# --- media and placeholders


def _with_inline(media: tuple[Media, ...], inline: list[Media], findings: Findings) -> tuple[Media, ...]:
    """Media of content parts, unless the row's own fields name the same."""
    if not inline:
        return media
    if media and media != tuple(inline):
        findings.problem("media twice", "messages", "media in parts of the messages or in a field of the row", inline)
    if len({item.kind for item in inline}) > 1:
        findings.problem("clip and image", "messages", "clips or images in one row", [item.kind for item in inline])
    return media or tuple(inline)


def _with_choices(pair: Pair, options: Mapping[str, str], findings: Findings) -> Pair:
    """Give answers that name an option its text, as in rows with one answer."""
    if not options or not pair.chosen or not pair.rejected:
        return pair
    labels = _labels(pair.turns, options)
    chosen, rejected = (
        answer_with_text(text, options, name, findings, labels)
        for text, name in ((pair.chosen, "chosen"), (pair.rejected, "rejected"))
    )
    if chosen == rejected:
        findings.problem("equal answers", "rejected", "two different answers", chosen)
    return replace(pair, chosen=chosen, rejected=rejected)


def _without_greeting(turns: tuple[Turn, ...], findings: Findings) -> tuple[Turn, ...]:
    if turns and turns[0].role == "assistant":
        findings.note(GREETING)
        return turns[1:]
    return turns


def _own_placeholders(turns: tuple[Turn, ...], media: tuple[Media, ...], findings: Findings) -> tuple[Turn, ...]:
    """In a row with one kind of media, the other kind's placeholder means that media, unless its own is there too."""
    questions = [turn.text for turn in turns if turn.role == "user"]
    answers = [turn.text for turn in turns if turn.role == "assistant"]
    if any(VIDEO_TOKEN in text or IMAGE_TOKEN in text for text in answers):
        findings.note(IN_ANSWER)
    if not media:
        return turns
    kind = media[0].kind
    own, other = token_of(kind), token_of("image" if kind == "video" else "video")
    if not any(other in text for text in questions):
        return turns
    if any(own in text for text in questions):
        findings.note(OTHER_KIND)
        return turns
    findings.note(OTHER_TOKEN[kind])
    return tuple(replace(turn, text=turn.text.replace(other, own)) if turn.role == "user" else turn for turn in turns)


def _note_repeated(turns: tuple[Turn, ...], media: tuple[Media, ...], findings: Findings) -> None:
    """A question with more placeholders than clips shows its clip once; with as many, they stay in their places."""
    if not media:
        return
    token = token_of(media[0].kind)
    counts = [turn.text.count(token) for turn in turns if turn.role == "user"]
    if max(counts, default=0) > 1 and sum(counts) != len(media):
        findings.note(REPEATED[media[0].kind])


def _check_record(record: Record, findings: Findings) -> None:
    if any(item.start is not None or item.end is not None for item in record.media):
        findings.note(PART_OF_CLIP)
    blank = False
    for number, turn in enumerate(record.turns):
        if turn.role != ("assistant" if number % 2 else "user"):
            roles = [turn.role for turn in record.turns]
            findings.problem("roles", "conversations", "alternating questions and answers", Words(", ".join(roles)))
            return
        blank = blank or (number % 2 == 1 and not turn.text.strip())
    if blank:
        findings.problem("blank answer", "conversations", "a text in every answer", Words("none"))

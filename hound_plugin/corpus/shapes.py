"""Other people's rows to ours: what a row is, and what it becomes.

Taken: conversations (LLaVA, the original), messages (ShareGPT, OpenAI), question and answer, instruction and output,
captions, and preferences in any of these. Given: ``{"id", "video" | "image", "conversations"}``, or with ``chosen`` and
``rejected`` ``{"id", "video" | "image", "prompt", "chosen", "rejected"}``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hound_plugin.corpus.records import (
    IMAGE_FIELDS,
    IMAGE_TOKEN,
    ROLES,
    VIDEO_FIELDS,
    VIDEO_TOKEN,
    answer_of,
)
from hound_plugin.errors import DataError

_IDS = ("id", "idx", "question_id", "sample_id", "uid")
_MORE_VIDEO = (*VIDEO_FIELDS, "video_path", "video_name", "video_id", "clip")
_MORE_IMAGE = (*IMAGE_FIELDS, "image_path", "image_file")
_QUESTIONS = ("question", "q", "instruction", "prompt", "query")
_ANSWERS = ("answer", "a", "output", "response")
_CAPTIONS = ("caption", "text", "description")
_CHOSEN, _REJECTED = ("chosen", "preferred"), ("rejected", "dispreferred")
_ROLES = {**ROLES, "bot": "assistant", "model": "assistant", "system": "system"}
_TOKENS = (VIDEO_TOKEN, IMAGE_TOKEN)

Turns = list[tuple[str, str]]


def convert_record(
    record: dict[str, Any], number: int, caption_prompt: str, keep: Sequence[str] = ()
) -> dict[str, Any]:
    """One row in our shape.

    Args:
        record: the row.
        number: its place, for rows without an id.
        caption_prompt: the question that captions answer.
        keep: names of other fields to take over.

    Raises:
        DataError: it is none of the known shapes; the message says what it lacks.
    """
    media, field = _media(record)
    chosen, rejected = _first(record, _CHOSEN), _first(record, _REJECTED)
    pair = chosen is not None or rejected is not None
    turns, inline = _turns(record, caption_prompt, chosen, pair)
    if media is None and inline:
        (field, media), inline = inline[0], inline[1:]
        if inline:
            media = [media, *(path for kind, path in inline if kind == field)]
    out: dict[str, Any] = {"id": str(_identity(record, number))}
    if media is not None:
        out[field] = media
    system = "\n".join(text for role, text in turns if role == "system")
    turns = _with_placeholders([turn for turn in turns if turn[0] != "system"], media, field)
    if pair:
        out.update(_pair(turns, chosen, rejected))
    else:
        out["conversations"] = [{"from": "human" if role == "user" else "gpt", "value": text} for role, text in turns]
    if system:
        out["system"] = system
    return {**out, **{name: record[name] for name in keep if name in record and name not in out}}


def _identity(record: dict[str, Any], number: int) -> Any:
    found = _first(record, _IDS)
    return f"row-{number}" if found is None else found


def _first(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first of ``names`` that has one."""
    return next((record[name] for name in names if record.get(name) not in (None, "", [])), None)


def _media(record: dict[str, Any]) -> tuple[Any, str]:
    for field, names in (("video", _MORE_VIDEO), ("image", _MORE_IMAGE)):
        value = _first(record, names)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is not None:
            return value, field
    return None, "video"


def _turns(record: dict[str, Any], caption_prompt: str, chosen: Any, pair: bool) -> tuple[Turns, list[tuple[str, str]]]:
    """Role and text of every turn, and media that stand inside them (OpenAI's content parts)."""
    inline: list[tuple[str, str]] = []
    for name in ("conversations", "messages", "prompt"):
        value = record.get(name)
        if isinstance(value, list) and value:
            return [_turn(turn, inline) for turn in value], inline
    question = _first(record, _QUESTIONS)
    extra = _first(record, ("input",))
    if isinstance(question, str) and isinstance(extra, str):
        question = f"{question}\n{extra}"
    if pair:
        if (
            question is None and isinstance(chosen, list) and len(chosen) > 1
        ):  # trl: the whole conversation on each side
            return [_turn(turn, inline) for turn in chosen[:-1]], inline
        if not isinstance(question, str):
            raise DataError("a question in `prompt`, `question` or `conversations` was expected beside the answers")
        return [("user", question)], inline
    answer = _first(record, _ANSWERS)
    if answer is None:
        answer, question = _first(record, _CAPTIONS), question or caption_prompt
    if not isinstance(question, str) or not isinstance(answer, str):
        raise DataError(
            "`conversations`, `messages`, a question with an answer, a caption, or `chosen` and `rejected` were "
            f"expected, found the fields {', '.join(sorted(record))[:200]}"
        )
    return [("user", question), ("assistant", answer)], inline


def _turn(turn: Any, inline: list[tuple[str, str]]) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise DataError(f"turns with a role and a text were expected, found {turn!r:.80}")
    role = _ROLES.get(str(turn.get("from", turn.get("role"))).lower())
    text = turn.get("value", turn.get("content"))
    if isinstance(text, list):
        text = _parts(text, inline)
    if role is None or not isinstance(text, str):
        raise DataError(f"turns of human and gpt (or user and assistant) with a text were expected, found {turn!r:.80}")
    return role, text


def _parts(parts: list[Any], inline: list[tuple[str, str]]) -> str:
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            texts.append(str(part.get("text", "")))
            continue
        field = next((name for name in ("video", "image") if str(kind).startswith(name)), None)
        path = part.get(kind, part.get(field)) if field else None
        path = path.get("url") if isinstance(path, dict) else path
        if field is None or not isinstance(path, str):
            raise DataError(f"parts of type text, image or video were expected, found {part!r:.80}")
        inline.append((field, path))
        texts.append(VIDEO_TOKEN if field == "video" else IMAGE_TOKEN)
    return "\n".join(texts)


def _with_placeholders(turns: Turns, media: Any, field: str) -> Turns:
    """Placeholders of the right kind, in front: other data sets write ``<image>`` for clips, or none at all."""
    if turns and turns[0][0] == "assistant":
        turns = turns[1:]
    if media is None:
        return turns
    token = VIDEO_TOKEN if field == "video" else IMAGE_TOKEN
    clean: Turns = []
    for role, text in turns:
        if role == "user" and any(other in text for other in _TOKENS):
            text = f"{token}\n{_without_tokens(text)}"
        clean.append((role, text))
    if clean and not any(role == "user" and token in text for role, text in clean):
        first = next((index for index, (role, _) in enumerate(clean) if role == "user"), None)
        if first is not None:
            clean[first] = ("user", f"{token}\n{clean[first][1].strip()}")
    return clean


def _without_tokens(text: str) -> str:
    return re.sub("|".join(map(re.escape, _TOKENS)), "", text).strip()


def _pair(turns: Turns, chosen: Any, rejected: Any) -> dict[str, str]:
    questions = [text for role, text in turns if role == "user"]
    if not questions:
        raise DataError("a question was expected beside the answers")
    if len(questions) > 1:
        raise DataError(f"one question was expected beside the answers, found {len(questions)}")
    answers: list[str] = []
    for side, value in (("chosen", chosen), ("rejected", rejected)):
        answer = answer_of(value)
        if not answer:
            raise DataError(f"a non-empty text was expected in `{side}`, found {value!r:.80}")
        answers.append(answer)
    return {"prompt": questions[0], "chosen": answers[0], "rejected": answers[1]}

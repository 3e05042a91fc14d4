"""What a server's replies say: chat completions and rows of batches, whatever shape they come in.

A reply that is none is a :class:`~hound_plugin.llm.requests.TransientError` with its reason; no other exception
comes out of here.
"""

from __future__ import annotations

import json
from typing import Any

from hound_plugin.errors import JudgeError
from hound_plugin.llm.requests import FILTERED, RejectedError, Reply, TransientError
from hound_plugin.llm.redaction import Redactor, shortened

FILTERS = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
_MOST_TOKENS = 10**9
_SHAPES = (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError)


def decode_body(content: bytes, redactor: Redactor) -> Any:
    """The JSON of a body, without secrets.

    Raises:
        TransientError: it is not JSON, or is nested too deeply.
    """
    try:
        return redactor.value(json.loads(content, parse_int=_whole))
    except RecursionError:
        raise TransientError("a body that is nested too deep", kind="malformed") from None
    except ValueError as error:
        shown = redactor.message(content.decode("utf-8", "replace"), 100)  # cut behind: half a key is a secret, too
        what = redactor.message(str(error), 100)
        raise TransientError(f"a body that is not JSON: {shown!r} ({what})", kind="malformed") from None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)


def read_completion(found: Any, redactor: Redactor) -> Reply:
    """A reply out of a chat completion, as :func:`decode_body` gives it.

    Args:
        found: the completion, without secrets.
        redactor: for the texts of parts, which hold the key when they are joined.

    Raises:
        TransientError: it is none.
    """
    try:
        choice = found["choices"][0]
        message, usage = choice["message"], found.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return Reply(
            text=redactor.text(_text(message.get("content"))),
            finish=str(choice.get("finish_reason") or "stop")[:100],
            refusal=redactor.text(_text(message.get("refusal"))),
            model=str(found.get("model") or "")[:200],
            fingerprint=str(found.get("system_fingerprint") or "")[:200],
            prompt_tokens=token_count(usage.get("prompt_tokens")),
            completion_tokens=token_count(usage.get("completion_tokens")),
        )
    except _SHAPES as error:
        what = shortened(f"{error!r}", 120)
        raise TransientError(f"no chat completion: {shortened(_json(found), 200)} ({what})", kind="malformed") from None


def _text(content: Any) -> str:
    """Text, or text parts of a list joined; parts that hold reasoning are no answer.

    Raises:
        TypeError: anything else, such as an image.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content if isinstance(content, list) else [content]:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise TypeError("expected text, or a list of parts with a type")
        if part["type"] in ("reasoning", "thinking"):
            continue
        if part["type"] not in ("text", "output_text") or not isinstance(part.get("text"), str):
            raise TypeError(f"a part of type {part['type'][:40]!r} is not text")
        texts.append(part["text"])
    return "".join(texts)


def token_count(value: Any) -> int | None:
    """A number of tokens as servers report it; None if it is not reported, or is none that can be."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None


def read_row(row: Any, redactor: Redactor, model: str) -> Reply | RejectedError | TransientError | JudgeError:
    """What a row of a batch's output or error file says.

    Args:
        row: as it was decoded.
        redactor: takes the key out of it.
        model: for messages.
    """
    try:
        return _row(redactor.value(row), redactor, model)
    except TransientError as problem:
        return problem
    except _SHAPES as error:
        return TransientError(f"no row of a batch: {redactor.message(repr(error), 100)}", kind="malformed")


def _row(row: Any, redactor: Redactor, model: str) -> Reply | RejectedError | TransientError | JudgeError:
    response, error = row.get("response"), row.get("error") or {}
    if response is None:
        return TransientError(redactor.message(str(error.get("message") or error.get("code") or "no response")))
    status, body = response.get("status_code"), response.get("body") or {}
    if status == 200:
        return read_completion(body, redactor)
    what = body.get("error") or error
    code, message = str(what.get("code") or ""), redactor.message(str(what.get("message") or status))
    if code in FILTERS:
        return RejectedError(f"{status}: {message}", FILTERED)
    if status in (401, 403, 404) or code == "insufficient_quota":
        return JudgeError(f"{model}: {status}: {message}. Answers so far are kept.")
    if status in (400, 413, 422):
        return RejectedError(f"{status}: {message}")
    return TransientError(f"{redactor.message(str(status), 40)}: {message}")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except _SHAPES:
        return repr(type(value))

"""Reads a server's replies: chat completions and rows of batches, in whatever shape they come.

Anything that is not a reply raises :class:`~hound_plugin.llm.requests.TransientError` with the reason.
"""

from __future__ import annotations

import json
from typing import Any

from hound_plugin.errors import JudgeError
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.redaction import Redactor, shortened
from hound_plugin.llm.requests import (
    EMPTY,
    FILTERED,
    OK,
    REFUSED,
    TRUNCATED,
    UNPARSED,
    ChatPrompt,
    RejectedError,
    Reply,
    Request,
    TransientError,
)

FILTERS = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
_MOST_TOKENS = 10**9
_ENDS = {
    "stop": ("", "stop", "eos", "eos_token", "end_turn", "stop_sequence", "end", "complete", "completed", "finished",
             "done", "tool_calls", "function_call", "tool_use"),
    "length": ("length", "max_tokens", "model_length", "max_length", "max_output_tokens", "max_new_tokens",
               "max_completion_tokens", "token_limit", "model_context_window_exceeded"),
    "content_filter": ("content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content",
                       "spii", "guardrail_intervened", "sensitive", "refusal"),
}  # fmt: skip
"""How servers say that a reply is whole, cut at a limit of tokens, or filtered; any other reason is a failure."""
_SHAPES = (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError)


def decode_body(content: bytes, redactor: Redactor) -> Any:
    """The JSON of a body, without secrets.

    Raises:
        TransientError: it is not JSON, or is nested too deeply.
    """
    try:
        return redactor.value(json.loads(content, parse_int=_whole))
    except RecursionError:
        raise TransientError("a body that is nested too deeply", kind="malformed") from None
    except ValueError as error:
        shown = redactor.message(content.decode("utf-8", "replace"), 100)  # cut last: half a key is a secret too
        what = redactor.message(str(error), 100)
        raise TransientError(f"a body that is not JSON: {shown!r} ({what})", kind="malformed") from None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)


def read_completion(completion: Any, redactor: Redactor) -> Reply:
    """The reply of a chat completion that :func:`decode_body` decoded.

    Args:
        completion: without secrets.
        redactor: for the texts of parts, which may spell the key once they are joined.

    Raises:
        TransientError: it is not a chat completion with one reply, or the server says that something went wrong.
    """
    try:
        (choice,) = completion["choices"]
        message, usage = choice["message"], completion.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        error = choice.get("error") or completion.get("error")
        if error:
            raise TransientError(f"an error beside a reply: {shortened(_json(error), 200)}", kind="malformed")
        if message.get("tool_calls") or message.get("function_call"):  # its text leads up to the call
            raise TransientError("a call of a tool instead of a reply", kind="malformed")
        return Reply(
            text=redactor.text(_text(message.get("content"))),
            finish=_how_it_ended(choice.get("finish_reason")),
            refusal=redactor.text(_text(message.get("refusal"))),
            model=str(completion.get("model") or "")[:200],
            fingerprint=str(completion.get("system_fingerprint") or "")[:200],
            prompt_tokens=token_count(usage.get("prompt_tokens")),
            completion_tokens=_written_tokens(usage),
        )
    except _SHAPES as error:
        shown, reason = shortened(_json(completion), 200), shortened(f"{error!r}", 120)
        raise TransientError(f"not a chat completion: {shown} ({reason})", kind="malformed") from None


def _how_it_ended(reason: Any) -> str:
    """``stop``, ``length`` or ``content_filter``, in whatever words a server says it; without a reason it is whole.

    Raises:
        TransientError: it ended in another way, such as ``error`` or ``abort``: its end may be missing.
    """
    word = str(reason or "").strip().lower().replace("-", "_").rpartition(".")[2]
    ended = next((name for name, words in _ENDS.items() if word in words), "")
    if not ended:
        what = f"a reply that ended by {str(reason)[:100]!r}, so that its end may be missing"
        raise TransientError(what, kind="malformed")
    return ended


def _written_tokens(usage: dict[str, Any]) -> int | None:
    """The tokens that a model wrote: those of reasoning too, which some servers count in the total alone."""
    read, written, total = (token_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    return written if None in (read, written, total) else max(written, total - read)  # type: ignore[type-var,operator]


def _text(content: Any) -> str:
    """The text, or the text parts of a list joined; reasoning parts do not count.

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
    """A token count as servers report it; None if it is absent or impossible."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None


def read_row(row: Any, redactor: Redactor, model: str) -> Reply | RejectedError | TransientError | JudgeError:
    """Read a row of a batch's output or error file.

    Args:
        row: as decoded.
        redactor: removes the key from it.
        model: for messages.
    """
    try:
        return _row(redactor.value(row), redactor, model)
    except TransientError as problem:
        return problem
    except _SHAPES as error:
        return TransientError(f"not a row of a batch: {redactor.message(repr(error), 100)}", kind="malformed")


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
        return JudgeError(f"{model}: {status}: {message}. Replies so far are kept.")
    if status in (400, 413, 422):
        return RejectedError(f"{status}: {message}")
    return TransientError(f"{redactor.message(str(status), 40)}: {message}")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except _SHAPES:
        return repr(type(value))


def to_entry(request: Request, attempt: int, reply: Reply | RejectedError, prompt: ChatPrompt) -> Entry:
    """The ledger entry of a reply; it has a value only if ``prompt`` can parse one."""
    if isinstance(reply, RejectedError):
        return Entry(request.key, attempt, reply.status, None, str(reply), prompt_tokens=0, completion_tokens=0)
    value: Any = None
    why: dict[str, str] = {}
    if reply.refusal:
        status = REFUSED
    elif reply.finish == "content_filter":
        status = FILTERED
    elif reply.finish == "length" and not prompt.keeps_truncated:
        status = TRUNCATED
    elif not reply.text.strip():
        status = EMPTY
    else:
        value = prompt.parse(reply.text)
        status = OK if value is not None else UNPARSED
        why = {"why": prompt.why_missing(reply.text)} if value is None else {}
    source = {"id": request.id, "candidate": request.candidate, "draw": request.draw}
    detail = json.dumps({"finish": reply.finish, **source, **why})
    return Entry(
        request.key, attempt, status, value, reply.refusal or reply.text, reply.model, reply.fingerprint, detail,
        reply.prompt_tokens, reply.completion_tokens,
    )  # fmt: skip


def finish_of(entry: Entry) -> str:
    """How a reply ended, as the server said: ``stop``, ``length`` if it was cut at the limit of tokens."""
    return str(json.loads(entry.detail or "{}").get("finish", "stop"))


def why_missing(entry: Entry) -> str:
    """Why a reply has no value, as :func:`to_entry` recorded it; empty if it has one or its status says it all."""
    return str(json.loads(entry.detail or "{}").get("why", ""))

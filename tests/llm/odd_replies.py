"""Replies that no honest server sends: bodies by name, for the fault server."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from aiohttp import web

GRADE = '{"reason": "seen", "score": 4}'


def body(content: Any = GRADE, **changes: Any) -> str:
    """A chat completion with these changes; a value that is a string of JSON is put in as it is."""
    found = {"model": "m", "choices": [{"index": 0, "message": {"content": content}, "finish_reason": "stop"}]}
    return json.dumps({**found, **changes})


def ended(reason: Any, content: str = GRADE, **changes: Any) -> str:
    """A completion that ended for this reason; ``changes`` are of its choice."""
    return body(choices=[{"index": 0, "message": {"content": content}, "finish_reason": reason, **changes}])


def usage(count: str) -> str:
    """A completion whose counts are this JSON."""
    return body(usage="HERE").replace('"HERE"', f'{{"prompt_tokens": {count}, "completion_tokens": {count}}}')


COUNTED_ODDLY: dict[str, str] = {
    "infinite": usage("1e999"),
    "minus infinite": usage("-Infinity"),
    "not a number": usage("NaN"),
    "thirty digits": usage("1" * 30),
    "five thousand digits": usage("7" * 5000),
    "negative": usage("-5"),
    "half": usage("2.5"),
    "count as text": usage('"12"'),
    "true": usage("true"),
    "count null": usage("null"),
    "count an object": usage('{"total": 3}'),
    "no usage": body(),
    "usage is a list": body(usage=[1, 2]),
    "usage is a text": body(usage="many"),
}
"""Answers with a good score whose numbers of tokens are none."""

READABLE: dict[str, tuple[str, int | None]] = {
    "parts": (body([{"type": "text", "text": '{"reason": "r", '}, {"type": "text", "text": '"score": 4}'}]), 4),
    "output parts": (body([{"type": "output_text", "text": GRADE}]), 4),
    "thinking part": (body([{"type": "thinking", "thinking": [{"type": "text", "text": "SCORE: 5"}]},
                            {"type": "text", "text": "SCORE: 2"}]), 2),
    "reasoning beside": (json.dumps({"choices": [
        {"message": {"content": "SCORE: 3", "reasoning_content": "SCORE: 5"}}]}), 3),
    "surrogate": (body('{"reason": "half \ud83d", "score": 4}'), 4),
    "surrogates around": (json.dumps({"model": "\ud83d", "system_fingerprint": "\udc00", "choices": [
        {"message": {"content": GRADE}, "finish_reason": "stop"}]}), 4),
    "key twice": ('{"choices": [], "choices": [{"message": {"content": "SCORE: 1"}}]}', 1),
    "names are objects": (body(model={"a": 1}, system_fingerprint=[2]), 4),
    "control characters": (body("\x1b[2J\x00\x07It is right.\nSCORE: 4"), 4),
}  # fmt: skip

NO_COMPLETION: dict[str, str] = {
    "a call of a tool": body(
        choices=[
            {
                "message": {"content": GRADE, "tool_calls": [{"id": "1", "type": "function"}]},
                "finish_reason": "tool_calls",
            }
        ]
    ),
    "a call of a function": body(choices=[{"message": {"content": "Let me look.", "function_call": {"name": "look"}}}]),
    "nothing": "",
    "prose": "Internal error, please try later",
    "html": "<!doctype html><html><body>502 Bad Gateway</body></html>",
    "not UTF-8": "latin",
    "null": "null",
    "number": "4",
    "text": '"SCORE: 4"',
    "list": "[]",
    "empty object": "{}",
    "brackets": "[" * 100_000,
    "nested": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "nested content": body("HERE").replace('"HERE"', "[" * 900 + "]" * 900),
    "choices null": '{"choices": null}',
    "choices empty": '{"choices": []}',
    "choices text": '{"choices": "SCORE: 4"}',
    "choices object": '{"choices": {"message": {"content": "SCORE: 4"}}}',
    "choice text": '{"choices": ["SCORE: 4"]}',
    "choice null": '{"choices": [null]}',
    "message list": '{"choices": [{"message": [{"content": "SCORE: 4"}]}]}',
    "message text": '{"choices": [{"message": "SCORE: 4"}]}',
    "message missing": '{"choices": [{"text": "SCORE: 4"}]}',
    "content number": body(4),
    "content object": body({"text": "SCORE: 4"}),
    "content image": body([{"type": "image_url", "image_url": {"url": "x"}}]),
    "content untyped": body(["SCORE: 4"]),
    "part text null": body([{"type": "text", "text": None}]),
    "streamed": 'data: {"choices": [{"delta": {"content": "SCORE: 4"}}]}\n\ndata: [DONE]\n\n',
    "error in 200": '{"error": {"message": "overloaded", "code": 503}}',
    "ended by error": ended("error"),
    "ended by abort": ended("abort"),
    "ended by the server's load": ended("insufficient_system_resource"),
    "ended by a surrogate": ended("\ud83d"),
    "ended by an object": ended({"type": "max"}),
    "error of the choice": ended("stop", error={"code": 502, "message": "upstream is gone"}),
    "error beside a reply": body(error={"message": "timed out"}),
    "two choices": body(choices=[{"message": {"content": f"SCORE: {score}"}} for score in (2, 5)]),
}
"""Bodies with status 200 in which there is no answer."""

CUT_BY_OTHER_NAMES = {
    f"cut: {name}": ended(name, "SCORE: 1")
    for name in ("max_tokens", "model_length", "MAX_TOKENS", "FinishReason.MAX_TOKENS")
}
"""Replies at the limit of tokens as other services than OpenAI say it: the score may have been going to be 10."""

PREFIX = "odd: "
"""Stands before the names above where they are kinds of the fault server."""
BODIES = {
    PREFIX + name: text
    for name, text in {
        **COUNTED_ODDLY,
        **{n: text for n, (text, _) in READABLE.items()},
        **NO_COMPLETION,
        **CUT_BY_OTHER_NAMES,
    }.items()
}
ECHOES = ("echo-answer", "echo-error", "echo-escaped", "echo-html", "echo-sunset", "echo-names", "echo-bad",
          "echo-part", "echo-halves")  # fmt: skip


def packed(kind: str) -> web.Response | None:
    """A reply that is packed or large."""
    good = body().encode()
    if kind == "large":
        return web.Response(body=b" " * (5 * 2**20) + good, content_type="application/json")
    if kind == "gzip":
        return _packed(gzip.compress(good[:50]) + gzip.compress(good[50:]), "gzip")
    if kind == "deflate":
        return _packed(zlib.compress(good), "deflate")
    if kind == "gzip-bomb":
        return _packed(gzip.compress(b'{"choices": "' + b" " * 50_000_000), "gzip")
    if kind == "gzip-damaged":
        return _packed(good, "gzip")
    return _packed(good, "br") if kind == "brotli" else None


def _packed(data: bytes, how: str) -> web.Response:
    return web.Response(body=data, headers={"Content-Type": "application/json", "Content-Encoding": how})


def echo(kind: str, key: str) -> web.Response:
    """The key in some part of a reply."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
    text = {
        "echo-answer": body(f"The key is {key}.\nSCORE: 4"),
        "echo-escaped": body("HERE").replace("HERE", f"{escaped}\\nno score"),
        "echo-names": body("no score", model=key, system_fingerprint=f"x{key}"),
        "echo-halves": body([{"type": "text", "text": half} for half in (key[:9], key[9:], " is the key")]),
        "echo-part": json.dumps({key: [key, {"choices": key}]}),
        "echo-sunset": body(),
        "echo-html": f"<p>You sent {key}</p>",
    }.get(kind, json.dumps({"error": {"message": f"key {key} is odd", "code": key}}))
    status = {"echo-html": 500, "echo-error": 500, "echo-bad": 400}.get(kind, 200)
    headers = {"Sunset": f"soon {key}"} if kind == "echo-sunset" else {}
    return web.Response(text=text, status=status, content_type="application/json", headers=headers)

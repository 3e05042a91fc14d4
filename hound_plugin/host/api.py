"""``llamafactory-cli api`` for our template: media are read and the conversation is checked before an answer begins.

So a bad request is a 400 with its reason, for streamed answers too, and the server's event loop never waits for a
download or a decoder. An answer ends when its client is gone, so that one who gave up and asks again does not wait for
what he no longer wants. The patches are listed in :mod:`hound_plugin.host.compat`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from llamafactory.api.protocol import ChatCompletionRequest, ChatCompletionResponse, ChatMessage
from pydantic import PrivateAttr

from hound_plugin.errors import DataError, MediaError, SettingsError
from hound_plugin.host.engine import asker_gone, is_ours, prepare, shielded
from hound_plugin.host.sources import open_source
from hound_plugin.model.generation import GREEDY
from hound_plugin.processing.prompt import IMAGE_TOKEN, VIDEO_TOKEN

PATH = "/v1/chat/completions"
_TOKENS = {"image": IMAGE_TOKEN, "video": VIDEO_TOKEN}
_READERS = 4  # requests whose media are read at a time; they wait in memory for the engine
_LOOK = 0.25  # seconds between two looks at a connection
_BAD_REQUEST = (MediaError, DataError, SettingsError)


class PreparedRequest(ChatCompletionRequest):
    """A request whose messages and media are ready for the engine."""

    _prepared: Any = PrivateAttr(default=None)


def process_request(original: Callable[..., Any], request: Any) -> Any:
    """``llamafactory.api.chat._process_request``: what was prepared, or the host's own."""
    return request._prepared if isinstance(request, PreparedRequest) else original(request)


def create_app(original: Callable[..., Any], chat_model: Any) -> Any:
    """``llamafactory.api.app.create_app``: put our check in front of the host's chat route."""
    app = original(chat_model)
    engine = chat_model.engine
    if not is_ours(getattr(engine, "template", None)) or not engine.can_generate:
        return app
    route = next(route for route in app.router.routes if getattr(route, "path", None) == PATH)
    app.router.routes.remove(route)
    reading = asyncio.Semaphore(_READERS)

    async def create_chat_completion(request: ChatCompletionRequest, connection: Request) -> Any:
        try:
            async with reading:
                ready = await asyncio.to_thread(prepared, request, engine)
            async with _while_connected(connection):
                return await route.endpoint(ready)
        except _BAD_REQUEST as error:
            return refusal(400, " ".join(str(error).split()))
        except HTTPException as error:
            return refusal(error.status_code, str(error.detail))

    app.add_api_route(
        PATH,
        create_chat_completion,
        methods=["POST"],
        response_model=ChatCompletionResponse,
        dependencies=route.dependencies,
    )
    return app


@asynccontextmanager
async def _while_connected(connection: Request) -> AsyncIterator[None]:
    """Tell the engine when the client hangs up; a streamed answer, which begins later, ends with its reader anyway."""
    gone = threading.Event()

    async def watch() -> None:
        while not await connection.is_disconnected():
            await asyncio.sleep(_LOOK)
        gone.set()

    asker_gone.set(gone)  # in the context of this request alone
    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


def refusal(status: int, reason: str) -> JSONResponse:
    """An error as FastAPI writes it (``detail``) and as OpenAI's clients show it (``error.message``)."""
    error = {"message": reason, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"detail": reason, "error": error}, status)


def prepared(request: ChatCompletionRequest, engine: Any) -> PreparedRequest:
    """Read a request's media and check that it can be answered.

    Raises:
        HoundError: it cannot; the message says why.
        HTTPException: the host refuses it.
    """
    from llamafactory.api.chat import _process_request

    if request.tools:
        raise DataError("Expected no tools: LLaVA-Hound calls none. Leave `tools` out.")
    _check_text("model", request.model)
    request = _checked_numbers(request)
    media: dict[str, list[Any]] = {"image": [], "video": []}
    messages = [
        message.model_copy(update={"content": _text(message, media)}, deep=True) for message in request.messages
    ]
    plain = request.model_copy(update={"messages": messages})
    texts, system, tools, *_ = _process_request(plain)
    ready = prepare(engine, texts, system, tools, media["image"] or None, media["video"] or None)
    result = PreparedRequest.model_construct(**{**plain.__dict__})
    result._prepared = (ready[0], ready[1], tools, ready[2], ready[3], None)
    return result


def _checked_numbers(request: ChatCompletionRequest) -> ChatCompletionRequest:
    """Refuse what transformers would refuse in the midst of an answer, and give OpenAI's defaults their meaning.

    A temperature below 0.01 is greedy, as in the original. The host takes ``presence_penalty`` for transformers'
    repetition penalty, where 1 is none; OpenAI's default of 0 means none too.
    """
    for name, value, fits, expected in (
        ("max_tokens", request.max_tokens, lambda x: x >= 1, "at least 1"),
        ("temperature", request.temperature, lambda x: 0 <= x <= 100, "0 to 100"),
        ("top_p", request.top_p, lambda x: 0 < x <= 1, "above 0 and at most 1"),
        ("presence_penalty", request.presence_penalty, lambda x: x == 0 or 0.1 <= x <= 10, "0, or 0.1 to 10"),
        ("n", request.n, lambda x: 1 <= x <= (1 if request.stream else 128), "1 (streamed) or 1 to 128"),
    ):
        if value is not None and not fits(value):
            raise SettingsError(f"{name}: expected {expected}, got {value!r}.")
    changes: dict[str, Any] = {}
    if request.temperature is not None and request.temperature < GREEDY:
        changes["temperature"] = 0.0
    if request.presence_penalty == 0:
        changes["presence_penalty"] = None
    return request.model_copy(update=changes)


def _check_text(name: str, text: str | None) -> None:
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name}: expected text that can be written as UTF-8, got half of a surrogate pair.") from error


def _text(message: ChatMessage, media: dict[str, list[Any]]) -> str:
    """A message's text with a placeholder for each of its media, which are opened and appended to ``media``."""
    asks = str(message.role) == "user"
    if message.content is None:
        if asks:
            raise DataError("Expected text or media in a user's message, got no content.")
        return ""
    if isinstance(message.content, str):
        _check_text("content", message.content)
        return shielded(message.content) if asks else message.content
    text = ""
    for part in message.content:
        if part.type == "text":
            _check_text("text", part.text)
            text += shielded(part.text or "") if asks else part.text or ""
            continue
        kind = part.type.removesuffix("_url")
        url = getattr(part, part.type, None)
        if kind not in _TOKENS:
            raise DataError("Expected no audio: LLaVA-Hound sees frames only.")
        if not asks:
            raise DataError(f"Expected media in messages of the user only, found {part.type} in one of {message.role}.")
        if url is None or not url.url:
            raise DataError(f"Expected {part.type} to hold a url, as {{'{part.type}': {{'url': ...}}}}.")
        media[kind].append(open_source(url.url, kind))
        text += _TOKENS[kind]
    return text

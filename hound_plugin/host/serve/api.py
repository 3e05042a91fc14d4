"""``llamafactory-cli api`` for our template: OpenAI's chat completions, with no parameter silently ignored.

A request is checked and its media are read before its answer begins, so that a bad one is a 400 with its reason, for
streamed answers too, and the server's event loop never waits for a download or a decoder. An answer ends when its
client disconnects, so that one who gave up and asks again does not wait for an unwanted answer. The patches are listed
in :mod:`hound_plugin.host.patches`; what is honoured, in :mod:`hound_plugin.host.serve.api_schema`.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from llamafactory.extras import logging
from llamafactory.extras.misc import is_env_enabled
from sse_starlette import EventSourceResponse

from hound_plugin.host.mm_plugin import is_ours
from hound_plugin.host.serve import api_errors
from hound_plugin.host.serve.api_answers import Begun, Completion, PreparedRequest, answer_events, chunks
from hound_plugin.host.serve.api_messages import read_conversation
from hound_plugin.host.serve.api_schema import ChatRequest, check_frames, decoding_of, read_request
from hound_plugin.host.serve.engine import prepare
from hound_plugin.model.answer_stream import Event

logger = logging.get_logger(__name__)
PATH = "/v1/chat/completions"
_READERS = 4  # requests whose media are read at a time; they wait in memory for the engine
_POLL = 0.25  # seconds between two checks of a connection
_SHOWN = 200  # characters of a text in the log; `data:` URIs are longer


def create_app(original: Callable[..., Any], chat_model: Any) -> Any:
    """``llamafactory.api.app.create_app``: our chat route instead of the host's, and OpenAI's form for errors."""
    app = original(chat_model)
    engine = chat_model.engine
    if not is_ours(getattr(engine, "template", None)):
        return app
    api_errors.use_for_all_routes(app)
    if not engine.can_generate:
        return app
    route = next(route for route in app.router.routes if getattr(route, "path", None) == PATH)
    app.router.routes.remove(route)
    reading = asyncio.Semaphore(_READERS)

    async def create_chat_completion(connection: Request) -> Any:
        try:
            body = await connection.body()
            async with _while_connected(connection) as disconnected:
                async with reading:
                    request, ready = await asyncio.to_thread(prepare_request, body, engine)
                return await _response(request, answer_events(engine, ready, disconnected))
        except Exception as error:
            return api_errors.refusal(error)

    schema = {"content": {"application/json": {"schema": ChatRequest.model_json_schema()}}, "required": True}
    app.add_api_route(
        PATH,
        create_chat_completion,
        methods=["POST"],
        dependencies=route.dependencies,
        openapi_extra={"requestBody": schema},
    )
    return app


async def _response(request: ChatRequest, events: AsyncIterator[Begun | Event]) -> Any:
    """The whole answer, or a stream that begins with its first piece; what fails before that is a plain error."""
    tells, n = bool(request.logprobs), request.n or 1
    if not request.stream:
        completion = Completion(request.model, n)
        async for event in events:
            completion.take(event)
        return JSONResponse(completion.whole(tells))
    first = [event for event in [await anext(events, None), await anext(events, None)] if event is not None]

    async def all_events() -> AsyncIterator[Begun | Event]:
        try:
            for event in first:
                yield event
            async for event in events:
                yield event
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    stream = chunks(all_events(), request.model, n, tells, request.counts_tokens)
    return EventSourceResponse(stream, media_type="text/event-stream", sep="\n")


@asynccontextmanager
async def _while_connected(connection: Request) -> AsyncIterator[threading.Event]:
    """An event that is set when the client hangs up; a streamed answer, once it begins, ends with its reader anyway."""
    disconnected = threading.Event()

    async def watch() -> None:
        while not await connection.is_disconnected():
            await asyncio.sleep(_POLL)
        disconnected.set()

    watcher = asyncio.create_task(watch())
    try:
        yield disconnected
    finally:
        watcher.cancel()


def prepare_request(body: bytes, engine: Any) -> tuple[ChatRequest, PreparedRequest]:
    """Read a request and its media, and check that it can be answered.

    Raises:
        HoundError: it cannot; the message says why.
        HTTPException: the host refuses a medium.
    """
    request = read_request(body)
    if is_env_enabled("API_VERBOSE", "1"):
        shown = _shown(request.model_dump(exclude_unset=True))
        logger.info_rank0(f"==== request ====\n{json.dumps(shown, indent=2, ensure_ascii=False)}")
    check_frames(request, engine.processor.num_frames)
    decoding = decoding_of(request, engine.generating_args, engine.model.config.get_text_config().vocab_size)
    conversation = read_conversation(request.messages)
    media = conversation.open_media()
    messages, system, images, videos = prepare(
        engine, conversation.messages, conversation.system, None, media["image"] or None, media["video"] or None
    )
    return request, PreparedRequest(messages, system, images, videos, decoding, request.longest)


def _shown(value: Any) -> Any:
    """A value for the log, with long texts cut."""
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    if isinstance(value, str) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]}... ({len(value)} characters)"
    return value

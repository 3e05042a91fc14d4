"""``llamafactory-cli api`` for our template: OpenAI's chat completions, with no parameter silently ignored.

A request is checked and its media are read before its answer begins, so that a bad one is a 400 with its reason, for
streamed answers too, and the server's event loop never waits for a download or a decoder. One request does not hold up
another: text needs none of the places of media, downloads need none of the decoders', and whatever is done for a client
ends when it disconnects. The patches are listed in :mod:`hound_plugin.host.patches`; what is honoured, in
:mod:`hound_plugin.host.serve.api_schema`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from llamafactory.extras import logging
from llamafactory.extras.misc import is_env_enabled
from sse_starlette import EventSourceResponse
from starlette.exceptions import HTTPException

from hound_plugin.errors import ClientDisconnectedError
from hound_plugin.host.mm_plugin import is_ours
from hound_plugin.host.serve import api_errors
from hound_plugin.host.serve.api_answers import Begun, Completion, PreparedRequest, answer_events, chunks
from hound_plugin.host.serve.api_connection import RequestMemory, in_thread, read_body, while_connected
from hound_plugin.host.serve.api_downloads import fetch
from hound_plugin.host.serve.api_messages import Conversation, read_conversation
from hound_plugin.host.serve.api_schema import ChatRequest, check_frames, decoding_of, openapi_schema, read_request
from hound_plugin.host.serve.engine import check, read_pixels
from hound_plugin.host.serve.turns import Turns
from hound_plugin.host.settings_state import settings
from hound_plugin.media.worker import allow_children
from hound_plugin.model.answer_stream import Decoding, Event

logger = logging.get_logger(__name__)
PATH = "/v1/chat/completions"
DECODE_TIMEOUT = 60.0
"""Seconds for a clip, if the recipe names no ``decode_timeout``: no client's clip may hold a decoder forever."""
_OTHER_PATH = "/v1/score/evaluation"  # the host's, for reward models
MEMORY = 2 << 30
"""Bytes of bodies and downloads at a time."""
_LARGE = 1 << 20  # bytes; a larger body is media work, whatever is in it
_MOST_READ = 32  # requests whose pixels wait for the engine
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
    routes = {getattr(route, "path", None): route for route in app.router.routes}
    for path in (PATH, _OTHER_PATH):
        app.router.routes.remove(routes[path])
    service = ChatService(engine)
    schema = {"content": {"application/json": {"schema": openapi_schema()}}, "required": True}
    app.add_api_route(
        PATH,
        service.respond,
        methods=["POST"],
        dependencies=routes[PATH].dependencies,
        openapi_extra={"requestBody": schema},
    )
    app.add_api_route(_OTHER_PATH, _not_allowed, methods=["POST"], dependencies=routes[PATH].dependencies)
    return app


async def _not_allowed() -> None:
    """The host's answer to whoever asks a chat model for scores, without reading what it was sent."""
    raise HTTPException(405, "Not allowed: this server answers chats (/v1/chat/completions).")


class ChatService:
    """Answers requests with an engine.

    Args:
        engine: the host's, of our template.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        chosen = settings()
        self.request_limit = int(chosen.api_request_limit * (1 << 20))
        self.download_timeout = chosen.api_download_timeout
        if engine.processor.decode_timeout is None and "decode_timeout" not in chosen.model_fields_set:
            engine.processor.decode_timeout = DECODE_TIMEOUT
        allow_children(chosen.api_decoders)
        self._texts = ThreadPoolExecutor(4, "text")
        self._media = ThreadPoolExecutor(chosen.api_decoders, "media")
        self._memory = RequestMemory(max(MEMORY, 2 * self.request_limit))
        self._read = asyncio.Semaphore(_MOST_READ)
        self._turns = Turns(engine.semaphore)

    async def respond(self, connection: Request) -> Any:
        """The response to a request for a chat completion."""
        try:
            with self._memory.share() as take:
                body = await read_body(connection, self.request_limit, take)
                work = functools.partial(self._answer, [body], take)
                del body
                return await while_connected(connection, work)
        except ClientDisconnectedError:
            return Response(status_code=499)  # to nobody
        except Exception as error:
            return api_errors.refusal(error)

    async def _answer(self, body: list[bytes], take: Callable[[int], None], disconnected: threading.Event) -> Any:
        executor = self._media if len(body[0]) > _LARGE else self._texts
        request, decoding, conversation = await in_thread(executor, read_chat, body.pop(), self.engine)
        messages, system = conversation.messages, conversation.system
        if not conversation.media:
            ready = PreparedRequest(messages, system, None, None, decoding, request.longest)
            return await self._respond(request, ready, disconnected)
        await conversation.download(functools.partial(fetch, seconds=self.download_timeout, take=take))
        async with self._read:
            images, videos = await in_thread(self._media, _pixels, self.engine, conversation)
            conversation.media.clear()
            ready = PreparedRequest(messages, system, images, videos, decoding, request.longest)
            return await self._respond(request, ready, disconnected)

    async def _respond(self, request: ChatRequest, ready: PreparedRequest, disconnected: threading.Event) -> Any:
        return await _response(request, answer_events(self.engine, self._turns, ready, disconnected))


def read_chat(body: bytes, engine: Any) -> tuple[ChatRequest, Decoding, Conversation]:
    """Read a request and check that it can be answered; none of its media is opened.

    Raises:
        HoundError: it cannot; the message says why.
    """
    request = read_request(body)
    if is_env_enabled("API_VERBOSE", "1"):
        shown = _shown(request.model_dump(exclude_unset=True))
        logger.info_rank0(f"==== request ====\n{json.dumps(shown, indent=2, ensure_ascii=False)}")
    check_frames(request, engine.processor.num_frames)
    decoding = decoding_of(request, engine.generating_args, engine.model.config.get_text_config().vocab_size)
    conversation = read_conversation(request.messages)
    request.messages.clear()  # what is in them is in the conversation
    images, videos = (conversation.sources(kind) or None for kind in ("image", "video"))
    conversation.messages, conversation.system = check(
        engine, conversation.messages, conversation.system, None, images, videos
    )
    return request, decoding, conversation


def _pixels(engine: Any, conversation: Conversation) -> tuple[Any, Any]:
    media = conversation.open_media()
    return read_pixels(engine.processor, media["image"] or None, media["video"] or None)


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


def _shown(value: Any) -> Any:
    """A value for the log, with long texts cut."""
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    if isinstance(value, str) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]}... ({len(value)} characters)"
    return value

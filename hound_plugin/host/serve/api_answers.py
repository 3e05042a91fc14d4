"""Answers of the API: the engine's events, and OpenAI's objects made of them, whole or as chunks of a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from hound_plugin.host.serve.api_errors import describe
from hound_plugin.host.serve.engine import Messages
from hound_plugin.host.serve.turns import Turns
from hound_plugin.model.answer_stream import Decoding, End, Event, Piece, TokenLogProb, generate_answers

_generating = ThreadPoolExecutor(64, "answer")  # more than the engine has places; whoever has one finds a thread


@dataclass(frozen=True)
class PreparedRequest:
    """A request whose conversation was checked and whose media are read.

    Attributes:
        messages, system, images, videos: as :func:`hound_plugin.host.serve.engine.prepare` gives them.
        decoding: how answers are made.
        longest: tokens an answer may have; None: as the recipe says.
    """

    messages: Messages
    system: str | None
    images: list[torch.Tensor] | None
    videos: list[torch.Tensor] | None
    decoding: Decoding
    longest: int | None


@dataclass(frozen=True)
class Begun:
    """The first event: how many tokens the conversation has."""

    prompt_tokens: int


async def answer_events(
    engine: Any, turns: Turns, ready: PreparedRequest, disconnected: threading.Event
) -> AsyncIterator[Begun | Event]:
    """Events of the answers to one request, in the order in which they are generated.

    It waits for its turn at the engine. When its reader leaves, or ``disconnected`` is set, generation ends with the
    token being generated, and only then is it another's turn.

    Raises:
        Exception: whatever ended the generation.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Begun | Event | BaseException | None] = asyncio.Queue()

    def send(event: Begun | Event | BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server ends
            loop.call_soon_threadsafe(events.put_nowait, event)

    def work() -> None:
        try:
            if not disconnected.is_set():
                _generate(engine, ready, send, disconnected)
        except BaseException as error:  # handed to the reader below
            send(error)
        send(None)

    await turns.acquire(has_media=bool(ready.images or ready.videos))
    generation = loop.run_in_executor(_generating, work)
    is_over = False
    try:
        while (event := await events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event
        is_over = True
    finally:
        disconnected.set()
        if is_over:
            turns.release()
        else:
            generation.add_done_callback(lambda _: turns.release())


@torch.inference_mode()
def _generate(engine: Any, ready: PreparedRequest, send: Any, disconnected: threading.Event) -> None:
    parts = (engine.model, engine.tokenizer, engine.processor, engine.template, engine.generating_args)
    limit = {} if ready.longest is None else {"max_new_tokens": ready.longest}
    arguments, prompt = engine._process_args(
        *parts, ready.messages, ready.system, None, ready.images, ready.videos, None, {"do_sample": False, **limit}
    )
    config = arguments.pop("generation_config")
    config.repetition_penalty = 1.0  # ours comes after the log-probabilities
    config.top_k = None
    arguments.pop("stopping_criteria")
    send(Begun(prompt))
    inputs = {"input_ids": arguments.pop("inputs"), **arguments}
    generate_answers(engine.model.generate, inputs, config, engine.tokenizer, ready.decoding, send, disconnected)


class Completion:
    """Makes OpenAI's objects of events.

    Args:
        model: the name that the request gave.
        n: how many answers there are.
    """

    def __init__(self, model: str, n: int) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._texts: list[list[str]] = [[] for _ in range(n)]
        self._log_probs: list[list[TokenLogProb]] = [[] for _ in range(n)]
        self._ends: dict[int, End] = {}
        self._prompt_tokens = 0

    def take(self, event: Begun | Event) -> None:
        """Add an event."""
        if isinstance(event, Begun):
            self._prompt_tokens = event.prompt_tokens
        elif isinstance(event, End):
            self._ends[event.index] = event
        else:
            self._texts[event.index].append(event.text)
            self._log_probs[event.index] += event.log_probs

    def usage(self) -> dict[str, int]:
        """Tokens of the conversation, counted once, and of all answers."""
        written = sum(end.tokens for end in self._ends.values())
        total = self._prompt_tokens + written
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": written, "total_tokens": total}

    def whole(self, tells_log_probs: bool) -> dict[str, Any]:
        """The ``chat.completion``."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(texts), "refusal": None},
                "logprobs": _log_probs(self._log_probs[index]) if tells_log_probs else None,
                "finish_reason": self._ends[index].finish if index in self._ends else "stop",
            }
            for index, texts in enumerate(self._texts)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self.usage()}

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> str:
        """One ``chat.completion.chunk`` as JSON."""
        return json.dumps({**self._head, "object": "chat.completion.chunk", "choices": choices, **more})


async def chunks(
    events: AsyncIterator[Begun | Event], model: str, n: int, tells_log_probs: bool, counts_tokens: bool
) -> AsyncIterator[str]:
    """The data of a stream: roles, pieces, ends, the usage if wanted, and ``[DONE]``; an error ends it as an error."""
    completion = Completion(model, n)
    more = {"usage": None} if counts_tokens else {}
    try:
        async for event in events:
            completion.take(event)
            if isinstance(event, Begun):
                for index in range(n):
                    yield completion.chunk([_delta(index, {"role": "assistant", "content": ""})], **more)
            elif isinstance(event, Piece):
                log_probs = _log_probs(event.log_probs) if tells_log_probs else None
                yield completion.chunk([_delta(event.index, {"content": event.text}, log_probs)], **more)
            else:
                yield completion.chunk([_delta(event.index, {}, None, event.finish)], **more)
        if counts_tokens:
            yield completion.chunk([], usage=completion.usage())
    except Exception as error:
        yield json.dumps(describe(error)[1])
    yield "[DONE]"


def _delta(index: int, delta: dict[str, Any], log_probs: Any = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": log_probs, "finish_reason": finish}


def _log_probs(tokens: Sequence[TokenLogProb]) -> dict[str, Any]:
    content = [{**_token(token), "top_logprobs": [_token(other) for other in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def _token(token: TokenLogProb) -> dict[str, Any]:
    return {
        "token": token.token.decode("utf-8", "replace"),
        "logprob": token.log_prob,
        "bytes": list(token.token),
    }

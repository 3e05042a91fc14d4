"""What one small request and the model list tell about a server: the format of its replies, a coming shutdown."""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import Callable

from hound_plugin.backoff import Backoff
from hound_plugin.errors import SettingsError
from hound_plugin.judge.prompts import JudgePrompt
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.openai_client import OpenAIClient
from hound_plugin.llm.requests import OK, UNPARSED, RejectedError, Reply, Request, TransientError
from hound_plugin.llm.retry import call_with_retries

TRIES = 3
LONGEST_WAIT = 30.0
_PROBE = Request("0" * 64, "probe", 0, 0, {
    "caption": "A white ball rolls to the left.", "question": "Which way does the ball roll?", "reference": "",
    "answer": "To the left.",
})  # fmt: skip


async def probe(
    client: OpenAIClient, prompt: JudgePrompt, ledger: Ledger, answer_format: str | None, say: Callable[[str], None]
) -> str:
    """The reply format to use, ``json`` or ``text``; warns if the service lists a shutdown date for the model.

    Args:
        client: for the server; it is closed at the end.
        prompt: of the judge.
        ledger: keeps the result.
        answer_format: the format, if it is known: then the server is only asked for the date.
        say: receives warnings.

    Raises:
        SettingsError: the server does not reply.
        JudgeError: the server refuses every request.
    """
    try:
        date = await client.shutdown_date()
        if date:
            say(f"warning: {client.endpoint.url} lists a shutdown of {client.endpoint.model}: {readable_date(date)}")
        if answer_format is None:
            answer_format = await _find_format(client, prompt, ledger)
            name = "JSON by schema" if answer_format == "json" else "text"
            say(f"{client.endpoint.model}: replies are requested as {name}")
    finally:
        await client.close()
    return answer_format


def known_format(client: OpenAIClient, ledger: Ledger) -> str | None:
    """The reply format that an earlier run found out."""
    return ledger.facts().get(_fact(client))


def _fact(client: OpenAIClient) -> str:
    return f"answer_format {client.endpoint.url} {client.endpoint.model}"


async def _find_format(client: OpenAIClient, prompt: JudgePrompt, ledger: Ledger) -> str:
    """``json`` if the server accepts a schema and follows it, else ``text``; found out once, kept in the ledger."""
    client.prompt = prompt.with_format("json")
    key = f"probe {client.endpoint.url} {client.endpoint.model}"
    sent = 0

    async def call() -> Reply:
        nonlocal sent
        await asyncio.wrap_future(ledger.sent(key, sent))
        sent += 1
        return await client.post(client.body(_PROBE, 0))

    answer_format = "text"
    try:
        reply = await call_with_retries(call, TRIES, Backoff(longest=LONGEST_WAIT, longest_retry_after=LONGEST_WAIT))
    except TransientError as error:
        raise SettingsError(
            f"{client.endpoint.url} does not reply: {error}. Check base_url, and that the server is running."
        ) from None
    except RejectedError:
        pass  # it does not support schemas; a request that is bad in itself shows up with the first judgement
    else:
        score = client.prompt.parse(reply.text)
        status = OK if score is not None else UNPARSED
        entry = Entry(key, sent - 1, status, score, reply.text, reply.model, reply.fingerprint, "{}",
                      reply.prompt_tokens, reply.completion_tokens)  # fmt: skip
        await asyncio.wrap_future(ledger.record(entry, release=False))
        answer_format = "json" if score is not None else "text"
    return await asyncio.wrap_future(ledger.set_once(_fact(client), answer_format))


def readable_date(text: str) -> str:
    """A date as it was given, or from seconds since 1970."""
    if re.fullmatch(r"\d{9,11}", text):
        return datetime.datetime.fromtimestamp(int(text), datetime.UTC).date().isoformat()
    return text

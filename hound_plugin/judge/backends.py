"""From settings to a judge or a sampling server."""

from __future__ import annotations

import asyncio
import datetime
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hound_plugin.errors import SettingsError
from hound_plugin.llm.requests import Message, Task, TransientError
from hound_plugin.llm.ledger import Ledger
from hound_plugin.judge.lexical import LexicalJudge
from hound_plugin.llm.openai_client import Endpoint, OpenAIClient
from hound_plugin.judge.parsing import Scale
from hound_plugin.llm.prices import Price
from hound_plugin.judge.prompts import Judging, read_protocol
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.runner import Limits
from hound_plugin.reward.scoring import Judge
from hound_plugin.reward.settings import JudgeSettings, RewardSettings, SampleSettings

LEXICAL_PROTOCOL = "lexical/1"
_PROBE = Task("0" * 64, "probe", 0, 0, {
    "caption": "A white ball rolls to the left.", "question": "Which way does the ball roll?", "reference": "",
    "answer": "To the left.",
})  # fmt: skip


def protocol_id(settings: JudgeSettings) -> str:
    """The protocol that a ledger is bound to."""
    return LEXICAL_PROTOCOL if settings.backend == "lexical" else read_protocol(settings.protocol_name).id


def scale_of(settings: JudgeSettings) -> Scale:
    """The scores that this judge can give."""
    return Scale() if settings.backend == "lexical" else read_protocol(settings.protocol_name).scale


def check_scale(settings: RewardSettings) -> None:
    """Compare what pairs are made by with the judge's scale.

    Raises:
        SettingsError: a threshold or a distance that no scores can have, or a threshold that was meant for 1 to 5.
    """
    scale, pairs = scale_of(settings.judge), settings.pairs
    if not scale.lowest <= pairs.threshold <= scale.highest:
        raise SettingsError(
            f"pairs.threshold: expected a number on the judge's scale, {scale}; got {pairs.threshold:g}."
        )
    for name in ("margin", "min_gap"):
        value, most = getattr(pairs, name), scale.highest - scale.lowest
        if value > most and (name == "min_gap" or pairs.policy == "margin"):
            raise SettingsError(f"pairs.{name}: expected at most {most} on the judge's scale, {scale}; got {value:g}.")
    if scale != Scale() and pairs.policy == "threshold" and "threshold" not in pairs.model_fields_set:
        raise SettingsError(f"pairs.threshold: must be given, since the judge's scale is {scale} and not {Scale()}.")


def needed_fields(settings: JudgeSettings) -> tuple[str, ...]:
    """Fields of a question without which this judge cannot judge."""
    if settings.backend == "lexical":
        return ("reference",)
    return Judging(read_protocol(settings.protocol_name), "").needs


def endpoint_of(settings: JudgeSettings | SampleSettings, parameters: Mapping[str, Any]) -> Endpoint:
    """The server that a block names; errors as :class:`Endpoint`."""
    return Endpoint(
        settings.model,
        base_url=settings.base_url,
        azure_endpoint=settings.azure_endpoint,
        api_version=settings.api_version,
        api_key_env=settings.api_key_env,
        timeout=settings.timeout,
        parameters=parameters,
    )


def make_judge(settings: JudgeSettings, ledger: Ledger, say: Callable[[str], None], ask: bool = True) -> Judge:
    """The judge of a run.

    Args:
        settings: the ``judge`` block.
        ledger: keeps what was found out about the server, and the secret behind the markers.
        say: takes warnings.
        ask: whether the server may be asked (not in a dry run).

    Raises:
        SettingsError: no key, or a bad protocol or address.
        JudgeError: the server refuses.
    """
    protocol = protocol_id(settings)
    if settings.backend == "lexical":
        judge = LexicalJudge()
        say(str(judge.identity["smoke_test"]))
        return Judge(judge, protocol, judge.identity)
    judging = Judging(read_protocol(settings.protocol_name), ledger.salt)
    if settings.backend == "local":
        from hound_plugin.judge.local import LocalJudge

        judging = judging.with_format("text" if settings.answer_format == "auto" else settings.answer_format)
        local = LocalJudge(settings.model, judging, settings.parameters, settings.device, settings.dtype,
                           settings.batch_size)  # fmt: skip
        return Judge(local, protocol, _determines(local.identity, judging, settings.parameters), judging.protocol.scale)
    endpoint = endpoint_of(settings, settings.parameters)
    client = _client(settings, endpoint, judging)
    chosen = settings.answer_format if settings.answer_format != "auto" else _known_format(client, ledger)
    if ask:
        chosen = asyncio.run(_meet(client, ledger, chosen, say))
    client.conversation = judging.with_format(chosen or "json")
    shown = {"frames": settings.num_frames, "size": settings.frame_size} if settings.backend == "vision" else {}
    identity = {"backend": "openai", "endpoint": endpoint.place, "model": endpoint.model, **shown}
    determines = _determines(identity, client.conversation, settings.parameters)
    return Judge(client, protocol, determines, judging.protocol.scale)


def _client(settings: JudgeSettings, endpoint: Endpoint, judging: Judging) -> OpenAIClient:
    if settings.backend == "vision":
        from hound_plugin.judge.vision import VisionClient

        return VisionClient(endpoint, judging, settings.num_frames, settings.frame_size)
    return OpenAIClient(endpoint, judging)


def _determines(identity: Mapping[str, Any], conversation: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {**identity, "answer_format": conversation.answer_format, "parameters": dict(parameters)}


def _fact(client: OpenAIClient) -> str:
    return f"answer_format {client.endpoint.place} {client.endpoint.model}"


def _known_format(client: OpenAIClient, ledger: Ledger) -> str | None:
    return ledger.facts().get(_fact(client))


async def _meet(client: OpenAIClient, ledger: Ledger, chosen: str | None, say: Callable[[str], None]) -> str:
    """Find out the form of answers with one small request, and when the model will be shut down."""
    try:
        date = await client.shutdown_date()
        if date:
            say(f"warning: {client.endpoint.place} lists a shutdown of {client.endpoint.model}: {readable_date(date)}")
        if chosen is None:
            chosen = await _find_format(client, ledger)
            say(f"{client.endpoint.model}: answers as {'JSON by schema' if chosen == 'json' else 'text'}")
    finally:
        await client.close()
    return chosen


async def _find_format(client: OpenAIClient, ledger: Ledger) -> str:
    """``json`` if the server takes a schema and keeps to it, else ``text``; found once, kept in the ledger."""
    judging = client.conversation
    assert isinstance(judging, Judging)
    client.conversation = judging.with_format("json")
    key = f"probe {client.endpoint.place} {client.endpoint.model}"
    found = "text"
    for number in range(3):
        await asyncio.wrap_future(ledger.sent(key, number))
        try:
            reply = await client.ask(client.body(_PROBE, 0))
        except TransientError as error:
            if number == 2:
                raise SettingsError(
                    f"{client.endpoint.place} does not answer: {error}. Check base_url and that the server runs."
                ) from None
            await asyncio.sleep(min(30.0, error.retry_after or 2.0**number))
            continue
        except Exception as error:
            from hound_plugin.llm.requests import RejectedError

            if not isinstance(error, RejectedError):
                raise
            break  # it knows no schema; a request that is bad in itself shows with the first judgement
        score = client.conversation.parse(reply.text)
        status = "ok" if score is not None else "unparsed"
        entry = Entry(key, number, status, score, reply.text, reply.model, reply.fingerprint, "{}",
                      reply.prompt_tokens, reply.completion_tokens)  # fmt: skip
        await asyncio.wrap_future(ledger.record(entry, release=False))
        found = "json" if score is not None else "text"
        break
    return await asyncio.wrap_future(ledger.set_once(_fact(client), found))


def readable_date(text: str) -> str:
    """A date as it was given, or out of seconds since 1970."""
    if re.fullmatch(r"\d{9,11}", text):
        return datetime.datetime.fromtimestamp(int(text), datetime.UTC).date().isoformat()
    return text


def make_limits(settings: RewardSettings, block: JudgeSettings | SampleSettings, attempts: int) -> Limits:
    """Limits of a run, with the price of the model if the user gave one."""
    price = settings.prices.get(block.model)
    if price is not None and isinstance(block, JudgeSettings) and block.backend == "openai-batch":
        price = Price(input=price.input * price.batch, output=price.output * price.batch)
    tokens = [block.parameters.get(name) for name in ("max_tokens", "max_completion_tokens")]
    output = next((int(value) for value in tokens if value), 300)
    if isinstance(block, SampleSettings):
        output = block.max_new_tokens
    images = block.num_frames * block.image_tokens if isinstance(block, JudgeSettings) else 0
    return Limits(
        attempts=attempts,
        tries=block.tries,
        concurrency=block.concurrency,
        max_cost=settings.max_cost,
        price=price,
        output_tokens=output,
        image_tokens=images if block.backend == "vision" else 0,
        pilot=block.pilot,
    )


@dataclass(frozen=True)
class Asking:
    """The conversation of a sampling server: the question, with its clip if the server can be shown one."""

    show: str
    num_frames: int = 8
    answer_format: str = "free"
    keeps_truncated: bool = True
    response_format: dict[str, Any] | None = None

    def messages(self, task: Task, attempt: int) -> list[Message]:
        """One user message."""
        text = {"type": "text", "text": task.fields["question"]}
        if not task.media or self.show == "none":
            return [{"role": "user", "content": task.fields["question"]}]
        if self.show == "frames":
            from hound_plugin.judge.vision import frame_parts

            return [{"role": "user", "content": [*frame_parts(task.media, self.num_frames, 512), text]}]
        kind = task.fields["medium"] + "_url"
        return [{"role": "user", "content": [{"type": kind, kind: {"url": task.media}}, text]}]

    @property
    def expects(self) -> str:
        """Any text."""
        return "a text that is not empty"

    def parse(self, text: str) -> str | None:
        """The answer itself."""
        return text.strip() or None

    def why_missing(self, text: str) -> str:
        """Nothing but white space is no answer."""
        return "it is empty"


def sampler_identity(settings: SampleSettings) -> dict[str, Any]:
    """Everything about a sampling server that determines its answers."""
    place = endpoint_of(settings, {}).place
    names = ("backend", "model", "temperature", "top_p", "max_new_tokens", "show", "num_frames", "parameters")
    return {"endpoint": place, **{name: getattr(settings, name) for name in names}}


def make_sampler(settings: SampleSettings) -> OpenAIClient:
    """A client for sampling from a server."""
    parameters = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_new_tokens,
        **settings.parameters,
    }
    client = OpenAIClient(endpoint_of(settings, parameters), Asking(settings.show, settings.num_frames or 8))
    client.reads_clips = settings.show == "frames"
    return client


def text_of(messages: list[Message]) -> str:
    """All text of messages, for estimates and dry runs."""
    texts = []
    for message in messages:
        content = message["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        texts += [part.get("text", f"[{part['type']}]") for part in parts]
    return "\n".join(texts)


def as_text(value: Any) -> str:
    """JSON of any value, for hashes and tables."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)

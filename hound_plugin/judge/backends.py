"""From settings to a judge that is ready to answer requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hound_plugin.judge.lexical import LexicalJudge
from hound_plugin.judge.parsing import Scale
from hound_plugin.judge.probe import known_format, probe
from hound_plugin.judge.prompts import JudgePrompt, PromptTemplate, read_template
from hound_plugin.judge.settings import JudgeSettings
from hound_plugin.llm.batch import BatchLimits, run_batches
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.limits import Limits, Outcome
from hound_plugin.llm.openai_client import Endpoint, OpenAIClient
from hound_plugin.llm.prices import Price
from hound_plugin.llm.reparse import reparse
from hound_plugin.llm.requests import Client, Request, request_key
from hound_plugin.llm.runner import run_requests
from hound_plugin.llm.server_settings import make_endpoint, make_limits, output_token_limit

LEXICAL_ID = "lexical/1"


@dataclass(frozen=True)
class JudgeBackend:
    """A client of a judge, with what determines its replies.

    Attributes:
        client: sends the requests.
        template_id: name, version and digest of the prompt template.
        key_parts: the back end, its model and parameters; part of every request's key.
        scale: the scores that the judge may give.
        verdict: whether it also says yes or no.
    """

    client: Client
    template_id: str
    key_parts: Mapping[str, Any]
    scale: Scale = Scale()  # noqa: RUF009 - frozen
    verdict: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """What is written with every score; includes the scale if it is not 1 to 5."""
        scale = {} if self.scale == Scale() else {"scale": [self.scale.lowest, self.scale.highest]}
        return {**self.client.identity, "protocol": self.template_id, **scale}

    def request(
        self,
        id: str,
        candidate: int,
        draw: int,
        fields: Mapping[str, str],
        media: Any = None,
        seed: int | None = None,
        digest: str | None = None,
    ) -> Request:
        """One judgement as a request; its key depends on neither ``id`` nor ``candidate``.

        Args:
            id, candidate, draw, fields, media, seed: as in :class:`~hound_plugin.llm.requests.Request`.
            digest: of the clip, if the request shows it.
        """
        parts = {**self.key_parts, "protocol": self.template_id, "fields": dict(fields), "draw": draw, "seed": seed}
        if digest is not None:
            parts["media"] = digest
        return Request(request_key(parts), id, candidate, draw, fields, media, seed)


def template_id(settings: JudgeSettings) -> str:
    """Id of the prompt template; the ledger of a run is bound to it."""
    return LEXICAL_ID if settings.backend == "lexical" else read_template(settings.template).id


def scale_of(settings: JudgeSettings) -> Scale:
    """The scores that this judge may give."""
    return Scale() if settings.backend == "lexical" else read_template(settings.template).scale


def gives_verdict(settings: JudgeSettings) -> bool:
    """Whether this judge says yes or no besides the score."""
    return settings.backend != "lexical" and read_template(settings.template).verdict


def required_fields(settings: JudgeSettings) -> tuple[str, ...]:
    """Fields that this judge needs of every question."""
    if settings.backend == "lexical":
        return ("reference",)
    return JudgePrompt(read_template(settings.template), "").required_fields


def make_judge(
    settings: JudgeSettings,
    ledger: Ledger,
    say: Callable[[str], None],
    probe_server: bool = True,
    make_prompt: Callable[[PromptTemplate, str], JudgePrompt] = JudgePrompt,
) -> JudgeBackend:
    """The judge of a run.

    Args:
        settings: the ``judge`` block.
        ledger: keeps what was found out about the server, and the secret behind the markers.
        say: receives warnings.
        probe_server: whether the server may be asked for the format of its replies (not in a dry run).
        make_prompt: makes the prompt from a template and the ledger's secret.

    Raises:
        SettingsError: no API key, or a bad template or address.
        JudgeError: the server refuses every request.
    """
    if settings.backend == "lexical":
        lexical = LexicalJudge()
        say(str(lexical.identity["smoke_test"]))
        return JudgeBackend(lexical, LEXICAL_ID, lexical.identity)
    prompt = make_prompt(read_template(settings.template), ledger.salt)
    if settings.backend == "local":
        return _local(settings, prompt)
    endpoint = make_endpoint(settings, settings.parameters)
    client = _client(settings, endpoint, prompt)
    answer_format = settings.answer_format if settings.answer_format != "auto" else known_format(client, ledger)
    if probe_server:
        answer_format = asyncio.run(probe(client, prompt, ledger, answer_format, say))
    client.prompt = prompt.with_format(answer_format or "json")
    shown = {"frames": settings.num_frames, "size": settings.frame_size} if settings.backend == "vision" else {}
    identity = {"backend": "openai", "endpoint": endpoint.url, "model": endpoint.model, **shown}
    return _backend(client, prompt, identity, settings)


def _local(settings: JudgeSettings, prompt: JudgePrompt) -> JudgeBackend:
    from hound_plugin.judge.local import LocalJudge

    prompt = prompt.with_format("text" if settings.answer_format == "auto" else settings.answer_format)
    client = LocalJudge(
        settings.model, prompt, settings.parameters, settings.device, settings.dtype, settings.batch_size
    )
    return _backend(client, prompt, client.identity, settings)


def _client(settings: JudgeSettings, endpoint: Endpoint, prompt: JudgePrompt) -> OpenAIClient:
    if settings.backend == "vision":
        from hound_plugin.judge.vision import VisionClient

        return VisionClient(endpoint, prompt, settings.num_frames, settings.frame_size)
    return OpenAIClient(endpoint, prompt)


def _backend(client: Client, prompt: JudgePrompt, identity: Mapping[str, Any], settings: JudgeSettings) -> JudgeBackend:
    parts = {**identity, "answer_format": client.prompt.answer_format, "parameters": dict(settings.parameters)}
    return JudgeBackend(client, prompt.template.id, parts, prompt.template.scale, prompt.template.verdict)


def judge_price(settings: JudgeSettings, prices: Mapping[str, Price]) -> Price | None:
    """What the judge's tokens cost, with the Batch API's factor; None without a price."""
    price = prices.get(settings.model)
    if price is not None and settings.backend == "openai-batch":
        return Price(input=price.input * price.batch, output=price.output * price.batch)
    return price


def judge_limits(settings: JudgeSettings, prices: Mapping[str, Price], max_cost: float | None) -> Limits:
    """The limits of a run of this judge."""
    return make_limits(
        settings,
        attempts=settings.attempts,
        output_tokens=output_token_limit(settings.parameters),
        price=judge_price(settings, prices),
        max_cost=max_cost,
        image_tokens=settings.num_frames * settings.image_tokens if settings.backend == "vision" else 0,
    )


def run_judge(
    requests: Callable[[], Iterator[Request]],
    judge: JudgeBackend,
    settings: JudgeSettings,
    ledger: Ledger,
    limits: Limits,
    say: Callable[[str], None],
) -> Outcome:
    """Judge whatever has no score yet, after parsing again what could not be parsed when it came.

    Args:
        requests: yields all requests from the start, each time it is called.
        judge: of :func:`make_judge` with these settings.
        settings: the ``judge`` block.
        ledger: holds the replies.
        limits: of :func:`judge_limits`.
        say: receives progress lines.

    Raises:
        JudgeError, LedgerError: as :func:`hound_plugin.llm.runner.run_requests`.
    """
    if number := reparse(requests(), ledger, judge.client.prompt, settings.attempts):
        say(f"judge: {number} replies that could not be parsed when they came have a score now; nothing was sent")
    if settings.backend == "openai-batch":
        assert isinstance(judge.client, OpenAIClient)
        size = BatchLimits(settings.batch_rows, settings.batch_bytes, settings.poll)
        return run_batches(requests, judge.client, ledger, limits, size, say)
    return run_requests(requests(), judge.client, ledger, limits, say)

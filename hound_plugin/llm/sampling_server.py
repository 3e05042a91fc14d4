"""Answers from a server: how it is asked, and what determines its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hound_plugin.llm.frames import frame_parts
from hound_plugin.llm.openai_client import OpenAIClient
from hound_plugin.llm.reasoning import control_token, has_reasoning, without_end
from hound_plugin.llm.requests import Message, Request, request_key
from hound_plugin.llm.sampler_settings import SamplerSettings
from hound_plugin.llm.server_settings import make_endpoint

FRAME_SIZE = 512
PROMPT_ID = "sample/1"
"""What the ledger of a sampler is bound to, instead of a prompt template."""


@dataclass(frozen=True)
class SamplingPrompt:
    """The :class:`~hound_plugin.llm.requests.ChatPrompt` of a sampler: the question, with its clip if it is shown."""

    show: str
    num_frames: int = 8
    answer_format: str = "free"
    keeps_truncated: bool = True
    response_format: dict[str, Any] | None = None

    def messages(self, request: Request, attempt: int) -> list[Message]:
        """One user message."""
        text = {"type": "text", "text": request.fields["question"]}
        if not request.media or self.show == "none":
            return [{"role": "user", "content": request.fields["question"]}]
        if self.show == "frames":
            return [{"role": "user", "content": [*frame_parts(request.media, self.num_frames, FRAME_SIZE), text]}]
        kind = request.fields["medium"] + "_url"
        return [{"role": "user", "content": [{"type": kind, kind: {"url": request.media}}, text]}]

    @property
    def expects(self) -> str:
        """A text without reasoning."""
        return "a text that is not empty, without the model's reasoning and without another turn"

    def parse(self, text: str) -> str | None:
        """The answer itself, without end-of-turn tokens that leaked at its end.

        None with reasoning or with another turn in it, which a judge and a training would take for the answer.
        """
        answer = without_end(text).strip()
        return None if has_reasoning(text) or control_token(answer) else answer or None

    def why_missing(self, text: str) -> str:
        """White space alone is not an answer, and reasoning is not part of one."""
        if has_reasoning(text):
            return (
                "it has the model's reasoning in it; start the server so that it sends that apart (vLLM: "
                "--reasoning-parser), or without reasoning"
            )
        if token := control_token(without_end(text)):
            return (
                f"it has {token}, a token of a chat template, in it: the model wrote on after its answer. Check the "
                "server's chat template and its stop tokens"
            )
        return "it is empty"


def sampler_identity(settings: SamplerSettings) -> dict[str, Any]:
    """Everything about a sampling server that determines its answers."""
    names = ("backend", "model", "temperature", "top_p", "max_new_tokens", "show", "num_frames", "parameters")
    return {"endpoint": make_endpoint(settings, {}).url, **{name: getattr(settings, name) for name in names}}


def sampling_parameters(settings: SamplerSettings) -> dict[str, Any]:
    """Parameters of each request; ``parameters`` of the settings override the others."""
    return {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_new_tokens,
        **settings.parameters,
    }


def make_sampler(settings: SamplerSettings) -> OpenAIClient:
    """A client for sampling from a server."""
    endpoint = make_endpoint(settings, sampling_parameters(settings))
    client = OpenAIClient(endpoint, SamplingPrompt(settings.show, settings.num_frames or 8))
    client.reads_clips = settings.show == "frames"
    return client


def sampling_request(
    identity: Mapping[str, Any],
    id: str,
    candidate: int,
    text: str,
    medium: str,
    media: Any,
    paths: Any,
    seed: int | None,
) -> Request:
    """One answer to one question as a request.

    Args:
        identity: of :func:`sampler_identity`.
        id, candidate: the question's id and the answer's number; neither is part of the request's key.
        text: the question without placeholder.
        medium: ``video``, ``image`` or empty.
        media: the clip as the question's row names it; part of the key.
        paths: where it is; what is sent.
        seed: of this answer; part of the key.
    """
    fields = {"question": text, "medium": medium}
    parts = {**identity, "fields": fields, "media": media, "seed": seed}
    return Request(request_key(parts), id, candidate, 0, fields, paths, seed)

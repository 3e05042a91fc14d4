"""Any server that speaks OpenAI's chat completions: OpenAI, Azure, vLLM, ``llamafactory-cli api`` and the rest.

The library's own retries are off: the runner retries, so that every request is counted in the ledger.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from hound_plugin.errors import JudgeError, MediaError, SettingsError
from hound_plugin.judge.exchange import (
    FILTERED,
    Conversation,
    OverloadedError,
    RejectedError,
    Reply,
    Task,
    TransientError,
)

QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated")
FILTERS = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
SHUTDOWN = ("shutdown_date", "deprecation_date", "expiration_date", "retirement_date", "sunset_date", "deprecation")
_KEY_LIKE = re.compile(r"\b(sk|key|Bearer)[-_ ][A-Za-z0-9*_.-]{8,}")


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and how.

    Attributes:
        model: the server's name of the model (Azure: of the deployment).
        base_url: ``https://host/v1``; the library's default if None.
        azure_endpoint, api_version: for Azure OpenAI, both or none.
        api_key_env: name of the environment variable that holds the key.
        timeout: seconds for one whole request.
        parameters: passed on as they are: ``temperature``, ``max_tokens`` or ``max_completion_tokens`` ...
    """

    model: str
    base_url: str | None = None
    azure_endpoint: str | None = None
    api_version: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked without asking.

        Raises:
            SettingsError: a URL with a password in it, half of Azure's settings, or no key.
        """
        for name in ("base_url", "azure_endpoint"):
            url = getattr(self, name)
            parts = urlsplit(url or "")
            if url and (parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc):
                raise SettingsError(
                    f"{name}: expected http(s)://host/..., without user and password; the key is read from "
                    f"the environment variable {self.api_key_env}."
                )
        if bool(self.azure_endpoint) != bool(self.api_version) or (self.azure_endpoint and self.base_url):
            raise SettingsError("Azure needs azure_endpoint and api_version, and no base_url.")
        self.key()

    def key(self) -> str:
        """The key from the environment; a placeholder for own servers that want none.

        Raises:
            SettingsError: it is not set.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and not self.base_url:
            raise SettingsError(
                f"The environment variable {self.api_key_env} is not set. Set it to your key, or give base_url of a "
                "server that needs none. Keys are read from the environment only."
            )
        return key or "none"

    @property
    def place(self) -> str:
        """The server, for keys and records."""
        return self.azure_endpoint or self.base_url or "https://api.openai.com/v1"

    @property
    def output_tokens(self) -> int:
        """The limit of an answer's tokens that the parameters set; 300 if they set none."""
        found = [self.parameters.get(name) for name in ("max_tokens", "max_completion_tokens")]
        return next((int(value) for value in found if value), 300)


class OpenAIClient:
    """A :class:`~hound_plugin.judge.exchange.Client` over HTTP."""

    def __init__(self, endpoint: Endpoint, conversation: Conversation) -> None:
        """Nothing is connected yet."""
        self.endpoint = endpoint
        self.conversation = conversation
        self.identity: Mapping[str, Any] = {"backend": "openai", "endpoint": endpoint.place, "model": endpoint.model}
        self.reads_clips = False
        self._secret = endpoint.key()
        self._server: Any = None

    def server(self) -> Any:
        """The library's client, made on first use: it belongs to the running event loop."""
        import openai

        if self._server is None:
            end = self.endpoint
            shared: dict[str, Any] = {"api_key": self._secret, "max_retries": 0, "timeout": end.timeout}
            if end.azure_endpoint:
                self._server = openai.AsyncAzureOpenAI(
                    azure_endpoint=end.azure_endpoint, api_version=end.api_version, **shared
                )
            else:
                self._server = openai.AsyncOpenAI(base_url=end.place, **shared)  # whatever the environment says
        return self._server

    def body(self, task: Task, attempt: int) -> dict[str, Any]:
        """The request, as the server gets it."""
        body = {
            "model": self.endpoint.model,
            "messages": self.conversation.messages(task, attempt),
            **self.endpoint.parameters,
        }
        if self.conversation.response_format is not None:
            body["response_format"] = self.conversation.response_format
        if task.seed is not None:
            body["seed"] = task.seed + attempt
        return {name: value for name, value in body.items() if value is not None}

    async def send(self, task: Task, attempt: int) -> Reply:
        """Ask once; errors as :class:`~hound_plugin.judge.exchange.Client` says."""
        try:
            body = await asyncio.to_thread(self.body, task, attempt) if self.reads_clips else self.body(task, attempt)
        except MediaError as error:  # this task counts as missing
            raise RejectedError(f"the clip cannot be read: {error}") from error
        return await self.ask(body)

    async def ask(self, body: dict[str, Any]) -> Reply:
        """One request with this body."""
        import openai

        standard = {"model", "messages", "response_format", "seed", "temperature", "top_p", "max_tokens",
                    "max_completion_tokens", "stop"}  # fmt: skip
        extra = {name: value for name, value in body.items() if name not in standard}
        arguments = {name: value for name, value in body.items() if name in standard}
        try:
            async with asyncio.timeout(self.endpoint.timeout):
                answer = await self.server().chat.completions.with_raw_response.create(**arguments, extra_body=extra)
            found = json.loads(answer.content)
            sunset = answer.headers.get("sunset")
        except TimeoutError as error:
            raise TransientError(f"no answer in {self.endpoint.timeout:g} s", kind="timeout") from error
        except openai.APIStatusError as error:
            raise self.translate(error) from None  # the original holds the request, and with it the key
        except openai.APIConnectionError as error:
            kind = "timeout" if isinstance(error, openai.APITimeoutError) else "connection"
            raise TransientError(self.clean(f"{error} {error.__cause__ or ''}".strip()), kind=kind) from None
        except (openai.OpenAIError, ValueError) as error:
            raise TransientError(f"a body that is no JSON: {self.clean(str(error))}", kind="malformed") from None
        reply = read_completion(found)
        return Reply(**{**vars(reply), "warning": self._warning(sunset)})

    def _warning(self, sunset: str | None) -> str:
        return f"the server says that {self.endpoint.model} is shut down on {sunset}" if sunset else ""

    def translate(self, error: Any) -> Exception:
        """What one of the library's status errors means here."""
        body = error.body if isinstance(error.body, dict) else {}
        code = str(body.get("code") or body.get("type") or "")
        message = self.clean(str(body.get("message") or error.message))[:500]
        status, wait = error.status_code, retry_after(error.response.headers)
        if status == 429 and (code in QUOTA or body.get("type") in QUOTA):
            return self._fatal(f"the quota is used up ({message})", "Add credit or raise the limit, then run again.")
        if status == 429 or (status in (503, 529) and wait is not None):
            return OverloadedError(f"{status}: {message}", wait, kind="overloaded")
        if status in (408, 409, 425) or status >= 500:
            return TransientError(f"{status}: {message}", wait)
        if status in (401, 403):
            hint = f"Check the key in {self.endpoint.api_key_env} and what it may use."
            return self._fatal(f"the key was refused ({status}: {message})", hint)
        if status == 402:
            return self._fatal(f"payment is required ({message})", "Add credit, then run again.")
        if status in (404, 405, 410):
            return self._fatal(f"no such model or address ({status}: {message})", "Check `model` and `base_url`.")
        filtered = code in FILTERS or "content management policy" in message
        return RejectedError(f"{status}: {message}", *([FILTERED] if filtered else []))

    def _fatal(self, what: str, hint: str) -> JudgeError:
        return JudgeError(
            f"{self.endpoint.model} at {self.endpoint.place}: {what}. {hint} Answers so far are kept; nothing is paid "
            "for twice."
        )

    def clean(self, text: str) -> str:
        """A text without the key and what looks like one."""
        if self._secret != "none":
            text = text.replace(self._secret, "[key]")
        return writable(_KEY_LIKE.sub("[key]", text))

    async def shutdown_date(self) -> str | None:
        """When the service will shut the model down, where it says so."""
        import openai

        try:
            async with asyncio.timeout(min(self.endpoint.timeout, 20)):
                answer = await self.server().models.with_raw_response.retrieve(self.endpoint.model)
            found = json.loads(answer.content)
        except (openai.OpenAIError, TimeoutError, ValueError):
            return None
        date = next((found[name] for name in SHUTDOWN if isinstance(found, dict) and found.get(name)), None)
        return None if date is None or isinstance(date, bool) else str(date)[:100]

    async def close(self) -> None:
        """Close the connections."""
        if self._server is not None:
            await self._server.close()
            self._server = None


def read_completion(found: Any) -> Reply:
    """A reply out of a chat completion.

    Raises:
        TransientError: it is none.
    """
    try:
        choice = found["choices"][0]
        message, usage = choice["message"], found.get("usage") or {}
        text = message.get("content") or ""
        if not isinstance(text, str):
            raise TypeError("content is no text")
        return Reply(
            text=writable(text),
            finish=str(choice.get("finish_reason") or "stop"),
            refusal=writable(str(message.get("refusal") or "")),
            model=str(found.get("model") or ""),
            fingerprint=str(found.get("system_fingerprint") or ""),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise TransientError(f"no chat completion: {str(found)[:200]} ({error!r})", kind="malformed") from error


def writable(text: str) -> str:
    """A text without halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by ``Retry-After`` (seconds or a date) or ``retry-after-ms``; None if not given or unreadable."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name)
        if not text:
            continue
        try:
            seconds = float(text) / scale
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
            except (TypeError, ValueError):
                continue
        if seconds == seconds and seconds < 86400:
            return max(0.0, seconds)
    return None

"""Any server that speaks OpenAI's chat completions: OpenAI, Azure, vLLM, ``llamafactory-cli api`` and the rest.

The library's own retries are off: the runner retries, so that every request is counted in the ledger. What the server
says passes the redactor before it goes anywhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hound_plugin.errors import JudgeError, MediaError, SettingsError
from hound_plugin.llm.address import check_address
from hound_plugin.llm.requests import (
    FILTERED,
    Conversation,
    OverloadedError,
    RejectedError,
    Reply,
    Task,
    TransientError,
)
from hound_plugin.llm.redaction import Redactor
from hound_plugin.llm.replies import FILTERS, decode_body, read_completion
from hound_plugin.llm.throttle import retry_after
from hound_plugin.llm.transport import OddReplyError, is_network_error, make_http_client

QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated")
SHUTDOWN = ("shutdown_date", "deprecation_date", "expiration_date", "retirement_date", "sunset_date", "deprecation")


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
            try:
                check_address(getattr(self, name) or "http://none")
            except ValueError as error:
                raise SettingsError(f"{name}: {error}") from None
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
    """A :class:`~hound_plugin.llm.requests.Client` over HTTP."""

    def __init__(self, endpoint: Endpoint, conversation: Conversation) -> None:
        """Nothing is connected yet."""
        self.endpoint = endpoint
        self.conversation = conversation
        self.identity: Mapping[str, Any] = {"backend": "openai", "endpoint": endpoint.place, "model": endpoint.model}
        self.reads_clips = False
        self._secret = endpoint.key()
        self.redactor = Redactor(self._secret)
        self._server: Any = None

    def server(self) -> Any:
        """The library's client, made on first use: it belongs to the running event loop."""
        import openai

        if self._server is None:
            end = self.endpoint
            shared: dict[str, Any] = {"api_key": self._secret, "max_retries": 0, "timeout": end.timeout}
            shared["http_client"] = make_http_client()
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
        """Ask once; errors as :class:`~hound_plugin.llm.requests.Client` says."""
        try:
            body = await asyncio.to_thread(self.body, task, attempt) if self.reads_clips else self.body(task, attempt)
        except MediaError as error:  # this task counts as missing
            raise RejectedError(f"the clip cannot be read: {error}") from error
        return await self.ask(body)

    async def ask(self, body: dict[str, Any]) -> Reply:
        """One request with this body; errors as :meth:`send`."""
        standard = {"model", "messages", "response_format", "seed", "temperature", "top_p", "max_tokens",
                    "max_completion_tokens", "stop"}  # fmt: skip
        extra = {name: value for name, value in body.items() if name not in standard}
        arguments = {name: value for name, value in body.items() if name in standard}
        try:
            async with asyncio.timeout(self.endpoint.timeout):
                answer = await self.server().chat.completions.with_raw_response.create(**arguments, extra_body=extra)
        except TimeoutError as error:
            raise TransientError(f"no answer in {self.endpoint.timeout:g} s", kind="timeout") from error
        except Exception as error:
            raise self.translated(error) from None  # the original holds the request, and with it the key
        reply = read_completion(decode_body(answer.content, self.redactor), self.redactor)
        return replace(reply, warning=self._warning(answer.headers.get("sunset")))

    def _warning(self, sunset: str | None) -> str:
        if not sunset:
            return ""
        return f"the server says that {self.endpoint.model} is shut down on {self.redactor.message(sunset, 100)}"

    def translated(self, error: Exception) -> Exception:
        """What an exception of a call to the server means; one that says nothing of the server comes back as it is."""
        import openai

        if isinstance(error, openai.APIStatusError):
            return self.translate(error)
        odd = error.__cause__ if isinstance(error.__cause__, OddReplyError) else error
        if isinstance(odd, OddReplyError):
            return TransientError(self.redactor.message(str(odd)), kind="malformed")
        if isinstance(error, openai.APIConnectionError) or is_network_error(error):
            kind = "timeout" if isinstance(error, openai.APITimeoutError) else "connection"
            return TransientError(self.redactor.message(f"{error} {error.__cause__ or ''}".strip()), kind=kind)
        if isinstance(error, openai.OpenAIError | ValueError | RecursionError):
            return TransientError(f"an answer of no known form: {self.redactor.message(str(error))}", kind="malformed")
        return error

    def translate(self, error: Any) -> Exception:
        """What one of the library's status errors means here."""
        body = error.body if isinstance(error.body, dict) else {}
        code = str(body.get("code") or body.get("type") or "")
        message = self.redactor.message(str(body.get("message") or error.message))
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
        if 300 <= status < 400:
            return self._redirected(error)
        if status == 402:
            return self._fatal(f"payment is required ({message})", "Add credit, then run again.")
        if status in (404, 405, 410):
            return self._fatal(f"no such model or address ({status}: {message})", "Check `model` and `base_url`.")
        filtered = code in FILTERS or "content management policy" in message
        return RejectedError(f"{status}: {message}", *([FILTERED] if filtered else []))

    def _redirected(self, error: Any) -> JudgeError:
        asked = str(error.request.url.copy_with(query=None))
        there = self.redactor.message(str(error.response.headers.get("location") or "nowhere"), 200)
        hint = "Redirects are not followed: the key would go along. Set `base_url` to the new address if it is right."
        return self._fatal(f"{asked} redirects to {there}", hint)

    def _fatal(self, what: str, hint: str) -> JudgeError:
        return JudgeError(
            f"{self.endpoint.model} at {self.endpoint.place}: {what}. {hint} Answers so far are kept; nothing is paid "
            "for twice."
        )

    async def shutdown_date(self) -> str | None:
        """When the service will shut the model down, where it says so."""
        import openai

        try:
            async with asyncio.timeout(min(self.endpoint.timeout, 20)):
                answer = await self.server().models.with_raw_response.retrieve(self.endpoint.model)
            found = decode_body(answer.content, self.redactor)
        except (openai.OpenAIError, TimeoutError, TransientError):
            return None
        date = next((found[name] for name in SHUTDOWN if isinstance(found, dict) and found.get(name)), None)
        return self.redactor.message(str(date), 100) if isinstance(date, str | int) and date is not True else None

    async def close(self) -> None:
        """Close the connections."""
        if self._server is not None:
            await self._server.close()
            self._server = None

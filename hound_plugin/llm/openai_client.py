"""Any server with OpenAI's chat completions API: OpenAI, Azure, vLLM, ``llamafactory-cli api`` and others.

The library's own retries are off: the runner retries, so that every request is counted in the ledger. Whatever the
server sends passes through the redactor first.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hound_plugin.backoff import parse_retry_after
from hound_plugin.errors import JudgeError, MediaError, SettingsError
from hound_plugin.llm.address import check_address
from hound_plugin.llm.redaction import Redactor
from hound_plugin.llm.replies import FILTERS, decode_body, read_completion
from hound_plugin.llm.requests import (
    FILTERED,
    ChatPrompt,
    OverloadedError,
    RejectedError,
    Reply,
    Request,
    TransientError,
)
from hound_plugin.llm.transport import BadReplyError, is_network_error, make_http_client

QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated")
SHUTDOWN = ("shutdown_date", "deprecation_date", "expiration_date", "retirement_date", "sunset_date", "deprecation")


@dataclass(frozen=True)
class Endpoint:
    """A model on a server, and the arguments of every request to it.

    Attributes:
        model: the server's name of the model (Azure: of the deployment).
        base_url: ``https://host/v1``; the library's default if None.
        azure_endpoint, api_version: for Azure OpenAI, both or neither.
        api_key_env: name of the environment variable that holds the key.
        timeout: seconds for one whole request.
        parameters: passed on unchanged: ``temperature``, ``max_tokens`` or ``max_completion_tokens`` ...
    """

    model: str
    base_url: str | None = None
    azure_endpoint: str | None = None
    api_version: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked without a request.

        Raises:
            SettingsError: a URL with a password in it, only half of Azure's settings, or no API key.
        """
        for name in ("base_url", "azure_endpoint"):
            try:
                check_address(getattr(self, name) or "http://none")
            except ValueError as error:
                raise SettingsError(f"{name}: {error}") from None
        if bool(self.azure_endpoint) != bool(self.api_version) or (self.azure_endpoint and self.base_url):
            raise SettingsError("Azure needs both azure_endpoint and api_version, and no base_url.")
        self.key()

    def key(self) -> str:
        """The API key from the environment; a placeholder for servers with a ``base_url``, which may need none.

        Raises:
            SettingsError: it is not set.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and not self.base_url:
            raise SettingsError(
                f"The environment variable {self.api_key_env} is not set. Set it to your API key, or set base_url to a "
                "server that needs none. Keys are read from the environment only."
            )
        return key or "none"

    @property
    def url(self) -> str:
        """The server's address, for request keys and records."""
        return self.azure_endpoint or self.base_url or "https://api.openai.com/v1"


class OpenAIClient:
    """A :class:`~hound_plugin.llm.requests.Client` over HTTP."""

    def __init__(self, endpoint: Endpoint, prompt: ChatPrompt) -> None:
        """Does not connect yet."""
        self.endpoint = endpoint
        self.prompt = prompt
        self.identity: Mapping[str, Any] = {"backend": "openai", "endpoint": endpoint.url, "model": endpoint.model}
        self.reads_clips = False
        self._secret = endpoint.key()
        self.redactor = Redactor(self._secret)
        self._server: Any = None

    def server(self) -> Any:
        """The library's client, created on first use: it belongs to the running event loop."""
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
                self._server = openai.AsyncOpenAI(base_url=end.url, **shared)  # not the environment's
        return self._server

    def body(self, request: Request, attempt: int) -> dict[str, Any]:
        """The request body as sent."""
        body = {
            "model": self.endpoint.model,
            "messages": self.prompt.messages(request, attempt),
            **self.endpoint.parameters,
        }
        if self.prompt.response_format is not None:
            body["response_format"] = self.prompt.response_format
        if request.seed is not None:
            body["seed"] = request.seed + attempt
        return {name: value for name, value in body.items() if value is not None}

    async def send(self, request: Request, attempt: int) -> Reply:
        """Send once; raises as :class:`~hound_plugin.llm.requests.Client` says."""
        try:
            if self.reads_clips:
                body = await asyncio.to_thread(self.body, request, attempt)
            else:
                body = self.body(request, attempt)
        except MediaError as error:  # this request counts as missing
            raise RejectedError(f"the clip cannot be read: {error}") from error
        return await self.post(body)

    async def post(self, body: dict[str, Any]) -> Reply:
        """Send one request with this body; raises as :meth:`send`."""
        standard = {"model", "messages", "response_format", "seed", "temperature", "top_p", "max_tokens",
                    "max_completion_tokens", "stop"}  # fmt: skip
        extra = {name: value for name, value in body.items() if name not in standard}
        arguments = {name: value for name, value in body.items() if name in standard}
        try:
            async with asyncio.timeout(self.endpoint.timeout):
                response = await self.server().chat.completions.with_raw_response.create(**arguments, extra_body=extra)
        except TimeoutError as error:
            raise TransientError(f"no reply within {self.endpoint.timeout:g} s", kind="timeout") from error
        except Exception as error:
            raise self.translate(error) from None  # the original holds the request, and with it the key
        reply = read_completion(decode_body(response.content, self.redactor), self.redactor)
        return replace(reply, warning=self._warning(response.headers.get("sunset")))

    def _warning(self, sunset: str | None) -> str:
        if not sunset:
            return ""
        return f"the server will shut down {self.endpoint.model} on {self.redactor.message(sunset, 100)}"

    def translate(self, error: Exception) -> Exception:
        """Turn an exception of a call to the server into one of ours; returns unrelated ones unchanged."""
        import openai

        if isinstance(error, openai.APIStatusError):
            return self._translate_status(error)
        bad = error.__cause__ if isinstance(error.__cause__, BadReplyError) else error
        if isinstance(bad, BadReplyError):
            return TransientError(self.redactor.message(str(bad)), kind="malformed")
        if isinstance(error, openai.APIConnectionError) or is_network_error(error):
            kind = "timeout" if isinstance(error, openai.APITimeoutError) else "connection"
            return TransientError(self.redactor.message(f"{error} {error.__cause__ or ''}".strip()), kind=kind)
        if isinstance(error, openai.OpenAIError | ValueError | RecursionError):
            return TransientError(f"a reply of unknown form: {self.redactor.message(str(error))}", kind="malformed")
        return error

    def _translate_status(self, error: Any) -> Exception:
        """Turn one of the library's status errors into ours."""
        body = error.body if isinstance(error.body, dict) else {}
        code = str(body.get("code") or body.get("type") or "")
        message = self.redactor.message(str(body.get("message") or error.message))
        status, wait = error.status_code, parse_retry_after(error.response.headers)
        if status == 429 and (code in QUOTA or body.get("type") in QUOTA):
            return self._fatal(f"the quota is used up ({message})", "Add credit or raise the limit, then run again.")
        if status == 429 or (status in (503, 529) and wait is not None):
            return OverloadedError(f"{status}: {message}", wait, kind="overloaded")
        if status in (408, 409, 425) or status >= 500:
            return TransientError(f"{status}: {message}", wait)
        if status in (401, 403):
            hint = f"Check the API key in {self.endpoint.api_key_env} and its permissions."
            return self._fatal(f"the API key was rejected ({status}: {message})", hint)
        if 300 <= status < 400:
            return self._redirected(error)
        if status == 402:
            return self._fatal(f"payment is required ({message})", "Add credit, then run again.")
        if status in (404, 405, 410):
            return self._fatal(f"no such model or address ({status}: {message})", "Check `model` and `base_url`.")
        filtered = code in FILTERS or "content management policy" in message
        return RejectedError(f"{status}: {message}", *([FILTERED] if filtered else []))

    def _redirected(self, error: Any) -> JudgeError:
        source = str(error.request.url.copy_with(query=None))
        target = self.redactor.message(str(error.response.headers.get("location") or "nowhere"), 200)
        hint = (
            "Redirects are not followed, because the API key would be sent along. If the new address is correct, set "
            "`base_url` to it."
        )
        return self._fatal(f"{source} redirects to {target}", hint)

    def _fatal(self, what: str, hint: str) -> JudgeError:
        return JudgeError(
            f"{self.endpoint.model} at {self.endpoint.url}: {what}. {hint} Replies so far are kept; nothing is paid "
            "for twice."
        )

    async def shutdown_date(self) -> str | None:
        """When the service will shut the model down, if it says so."""
        import openai

        try:
            async with asyncio.timeout(min(self.endpoint.timeout, 20)):
                response = await self.server().models.with_raw_response.retrieve(self.endpoint.model)
            info = decode_body(response.content, self.redactor)
        except (openai.OpenAIError, TimeoutError, TransientError):
            return None
        date = next((info[name] for name in SHUTDOWN if isinstance(info, dict) and info.get(name)), None)
        return self.redactor.message(str(date), 100) if isinstance(date, str | int) and date is not True else None

    async def close(self) -> None:
        """Close the connections."""
        if self._server is not None:
            await self._server.close()
            self._server = None

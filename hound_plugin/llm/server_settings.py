"""What the settings blocks of all servers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hound_plugin.llm.limits import Limits
from hound_plugin.llm.openai_client import Endpoint
from hound_plugin.llm.prices import Price

# descriptions of settings
PARAMETERS = "passed on to the server unchanged"
DEVICE = "of a model in this process; a GPU if there is one"
DTYPE = "of a model in this process: `auto`, `bfloat16`, `float16`, `float32`"
BASE_URL = "a server with OpenAI's chat completions API; OpenAI's own if not given"
AZURE = "https://NAME.openai.azure.com, for a deployment there"
API_VERSION = "of Azure, such as 2024-10-21"
KEY_ENV = "the environment variable that holds the API key; the key is never written to a file"
TIMEOUT = "of one request"
TRIES = "how often a request is sent that fails in transit"
VLLM = (
    "backend `vllm`: arguments of its engine besides model and dtype, such as `tensor_parallel_size`, "
    "`gpu_memory_utilization`, `max_model_len`"
)
SECONDS: dict[str, Any] = {"unit": "seconds"}


class ServerSettings(Protocol):
    """A settings block that names a model on a server."""

    @property
    def model(self) -> str: ...
    @property
    def base_url(self) -> str | None: ...
    @property
    def azure_endpoint(self) -> str | None: ...
    @property
    def api_version(self) -> str | None: ...
    @property
    def api_key_env(self) -> str: ...
    @property
    def timeout(self) -> float: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def tries(self) -> int: ...
    @property
    def pilot(self) -> int: ...


def make_endpoint(settings: ServerSettings, parameters: Mapping[str, Any]) -> Endpoint:
    """The endpoint that a block names; raises as :class:`~hound_plugin.llm.openai_client.Endpoint`."""
    return Endpoint(
        settings.model,
        base_url=settings.base_url,
        azure_endpoint=settings.azure_endpoint,
        api_version=settings.api_version,
        api_key_env=settings.api_key_env,
        timeout=settings.timeout,
        parameters=parameters,
    )


def output_token_limit(parameters: Mapping[str, Any]) -> int:
    """Tokens of a reply at most, as these parameters of a request set it; 300 if they do not."""
    limits = [parameters.get(name) for name in ("max_tokens", "max_completion_tokens")]
    return next((int(value) for value in limits if value), 300)


def make_limits(
    settings: ServerSettings,
    attempts: int,
    output_tokens: int,
    price: Price | None,
    max_cost: float | None,
    image_tokens: int = 0,
) -> Limits:
    """The limits of a run on that server."""
    return Limits(
        attempts=attempts,
        tries=settings.tries,
        pilot=settings.pilot,
        concurrency=settings.concurrency,
        max_cost=max_cost,
        price=price,
        output_tokens=output_tokens,
        image_tokens=image_tokens,
    )

"""Settings of a judge: the ``judge`` block of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hound_plugin.llm.address import Address, Parameters
from hound_plugin.llm.limits import PILOT
from hound_plugin.llm.server_settings import (
    API_VERSION,
    AZURE,
    BASE_URL,
    DEVICE,
    DTYPE,
    KEY_ENV,
    PARAMETERS,
    SECONDS,
    TIMEOUT,
    TRIES,
)
from hound_plugin.validation import Settings


class JudgeSettings(Settings):
    """Which model judges, and how."""

    backend: Literal["lexical", "openai", "openai-batch", "vision", "local"] = Field(
        default="lexical", description="`lexical` compares words with the reference, offline, for smoke tests only"
    )
    model: str = Field(default="", description="the judge; its id is recorded with every score")
    protocol: str | None = Field(
        default=None,
        description="`caption`, `vision`, `official` (for `hound eval`), or a YAML file with your own prompt; by "
        "default what fits the back end",
    )
    answer_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="`auto` finds out with one request whether the server supports JSON schemas"
    )
    k: int = Field(
        default=1, ge=1, description="judgements per answer; 2 or more give a mean, a spread and an agreement"
    )
    attempts: int = Field(default=3, ge=1, description="tries for a judgement whose reply cannot be parsed")
    pilot: int = Field(
        default=PILOT,
        ge=0,
        description="stop if this many first requests gave no score; 0: never. `openai-batch` sends them first",
    )
    seed: int | None = Field(default=None, description="passed on to the server")
    reference: bool = Field(default=True, description="whether the judge sees the reference answer, if there is one")
    base_url: Address | None = Field(default=None, description=BASE_URL)
    azure_endpoint: Address | None = Field(default=None, description=AZURE)
    api_version: str | None = Field(default=None, description=API_VERSION)
    api_key_env: str = Field(default="OPENAI_API_KEY", description=KEY_ENV)
    timeout: float = Field(default=120.0, ge=0.1, description=TIMEOUT, json_schema_extra=SECONDS)
    concurrency: int = Field(default=64, ge=1, description="requests at a time, at most; fewer if the server is slow")
    tries: int = Field(default=6, ge=1, description=TRIES)
    parameters: Parameters = Field(
        default_factory=lambda: {"temperature": 0, "max_tokens": 300}, description=PARAMETERS
    )
    num_frames: int = Field(default=8, ge=1, description="frames per clip that backend `vision` sees")
    frame_size: int = Field(
        default=512, ge=32, description="longer side of each frame", json_schema_extra={"unit": "pixels"}
    )
    image_tokens: int = Field(
        default=255, ge=0, description="per frame, for estimates only; providers count differently"
    )
    batch_rows: int = Field(default=50_000, ge=1, le=50_000, description="requests in one file of the Batch API")
    batch_bytes: int = Field(default=150_000_000, ge=1000, le=200_000_000, description="size of such a file, in bytes")
    poll: float = Field(default=60.0, ge=0.01, description="between two checks of a batch", json_schema_extra=SECONDS)
    device: str | None = Field(default=None, description=DEVICE)
    dtype: str = Field(default="auto", description=DTYPE)
    batch_size: int = Field(default=8, ge=1, description="judgements at a time, for a model in this process")

    @property
    def template(self) -> str:
        """Name or file of the prompt template; by default the one that fits the back end."""
        return self.protocol or ("vision" if self.backend == "vision" else "caption")

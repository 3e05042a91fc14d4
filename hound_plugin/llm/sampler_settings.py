"""Settings of what answers questions: a model in this process, a server, or a file."""

from __future__ import annotations

from typing import Any, Literal

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
    VLLM,
)
from hound_plugin.validation import Settings

QUEUED = 128
IN_THIS_PROCESS = ("model", "vllm")
"""Back ends that load the checkpoint in this process."""


class SamplerSettings(Settings):
    """Where answers come from: a model in this process, a server, or a file of existing answers."""

    backend: Literal["model", "vllm", "openai", "given"] = Field(
        default="model",
        description="our model in this process, the same in vLLM's engine (in its environment), a server, or a file "
        "of answers",
    )
    model: str = Field(default="", description="checkpoint (folder or hub id), or the server's name of its model")
    temperature: float = Field(default=1.0, ge=0, description="0 is greedy: all answers are identical")
    top_p: float = Field(default=0.95, ge=1e-6, le=1, description="nucleus sampling: share of probability")
    max_new_tokens: int = Field(default=512, ge=1, description="longest answer, in tokens")
    device: str | None = Field(default=None, description=DEVICE)
    dtype: str = Field(default="auto", description=DTYPE)
    batch_size: int = Field(default=8, ge=1, description="answers at a time, for a model in this process")
    num_frames: int | None = Field(
        default=None, ge=1, description="frames per clip; the model's own number if not given"
    )
    answers: str | None = Field(default=None, description="backend `given`: a JSONL of `id`, `candidate`, `answer`")
    show: Literal["video_url", "frames", "none"] = Field(
        default="video_url", description="how the clip is sent to a server: its path, frames as images, or not at all"
    )
    base_url: Address | None = Field(default=None, description=BASE_URL)
    azure_endpoint: Address | None = Field(default=None, description=AZURE)
    api_version: str | None = Field(default=None, description=API_VERSION)
    api_key_env: str = Field(default="OPENAI_API_KEY", description=KEY_ENV)
    timeout: float = Field(default=300.0, ge=0.1, description=TIMEOUT, json_schema_extra=SECONDS)
    concurrency: int = Field(default=16, ge=1, description="requests at a time, at most")
    tries: int = Field(default=6, ge=1, description=TRIES)
    vllm: dict[str, Any] = Field(default_factory=dict, description=VLLM)
    pilot: int = Field(default=PILOT, ge=0, description="stop if this many first requests gave no answer; 0: never")
    parameters: Parameters = Field(default_factory=dict, description=PARAMETERS)

    @property
    def questions_at_a_time(self) -> int:
        """Questions that a model in this process gets together; vLLM makes batches of its own and wants many."""
        return max(self.batch_size, QUEUED) if self.backend == "vllm" else self.batch_size

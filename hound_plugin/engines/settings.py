"""Settings of an engine: the block ``engine:``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from hound_plugin.validation import Settings

CLIENT = "ray://"


class EngineSettings(Settings):
    """Where the work runs, and on how much of it."""

    kind: Literal["local", "ray"] = Field(
        default="local",
        description="`local` is this process, or those of torchrun; `ray` is Ray Data (extra `ray`)",
    )
    address: str = Field(
        default="local",
        min_length=1,
        description="`local` starts Ray on this machine, `auto` joins the cluster that this machine is part of, "
        "HOST:PORT another one",
    )
    actors: int = Field(default=1, ge=1, description="processes that hold a model, on all machines together")
    cpus: float = Field(default=1.0, ge=0, description="cores of each of them")
    gpus: float = Field(default=0.0, ge=0, description="GPUs of each of them; 0.5 lets two share one")
    decoders: int = Field(
        default=1, ge=0, description="processes that read clips ahead, on any cores; 0: the model's process reads them"
    )
    batch: int = Field(
        default=8,
        ge=1,
        description="tasks in a block (a task is a question with its answers, or `predict.batch_size` questions): what "
        "is repeated after a process is lost",
    )
    retries: int = Field(default=3, ge=0, description="times a task is repeated whose process was lost; then stop")
    object_store: float | None = Field(
        default=None,
        ge=0.08,
        description="`address: local`: largest memory for what is between two processes; Ray's own rule if not given",
        json_schema_extra={"unit": "GiB"},
    )

    @field_validator("gpus")
    @classmethod
    def _whole_beyond_one(cls, gpus: float) -> float:
        if gpus > 1 and gpus % 1:
            raise ValueError(f"expected a part of one GPU or a whole number of them; got {gpus:g}")
        return gpus

    @field_validator("address")
    @classmethod
    def _joins_as_driver(cls, address: str) -> str:
        if address.startswith(CLIENT):
            raise ValueError(
                f"expected local, auto or HOST:PORT; got {address!r}. Ray Data does not run through Ray Client: start "
                "the command on a machine of the cluster, or with `ray job submit`"
            )
        return address
